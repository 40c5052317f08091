"""SmolLM2-135M learns two questions at once, HotpotQA and NQ: supervised, then GRPO, on one GPU.

    python benchmarks/end_to_end.py --dry-run          what it would do, and the bounds
    python benchmarks/end_to_end.py
      -> runs/end_to_end/         expert, sft, grpo, and tests: came, imitated, learned
      -> docs/results/end_to_end  horizon.md, .json and .svg; curves.svg; metrics; summary.json

An expert that searches for each question and copies out of what it found (benchmarks/qa_expert.py)
plays the official training questions; of its episodes, those are imitated that are right in all.
GRPO learns from rewards what is left of the minutes: --minutes bounds both trainings' steps, the
time that the expert takes is in summary.json. Tests are of the official development questions, N =
1, 2, 4, 8, greedy, with notes only and, beside it, with the same weights seeing everything. It goes
on where it was stopped. Settings: configs/end_to_end.toml; --set changes them.

Nobody has run it on a GPU yet.
"""

import argparse
import asyncio
import io
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson
from qa_expert import shown

from mem1.api import Watcher, evaluate_async, report_horizon, report_html
from mem1.config import CONFIG_FILE, ContextConfig, RunConfig, TasksConfig, load_config
from mem1.console import RunProgress, TrainProgress
from mem1.engines import ScriptedEngine
from mem1.errors import UserError
from mem1.files import atomic_write
from mem1.train.curriculum import Level
from mem1.train.logbook import METRICS_FILE, read_metrics
from mem1.train.sources import Source
from mem1.train.trainer import POLICY, train
from mem1.training import TrainWatcher, check_trainable, open_run
from mem1.types import Trajectory
from mem1.wiring import model_path, model_window, plan_cells, plan_jobs
from mem1.worlds import compose_tasks, open_world

ROOT = Path(__file__).parent.parent
SFT = (
    "train.algorithm=sft",
    "train.steps=150",
    "train.batch_size=32",
    "train.group_size=1",
    "train.optimizer.lr=1e-4",
    "train.optimizer.cooldown=0.3",
    "train.data.least_reward=2",
)
"""What the supervised start changes in configs/end_to_end.toml."""
CORPORA = ("corpus_multihop", "corpus_nq")
TRAINING = ("hotpotqa_train", "hotpotqa_devextra", "nq_train")
TESTS = ("hotpotqa_dev", "nq_dev")
NUM_OBJECTIVES = (1, 2, 4, 8)
CONTEXTS = ("internal_state", "full")
CURVES = ("reward", "answer_rate", "valid_turns", "num_turns", "peak_tokens")


class OutOfTimeError(Exception):
    """The minutes are over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """A source that ends once the steps so far have taken the time there is."""

    source: Source
    seconds: float
    metrics: Path

    def batch(self, step: int, *, level: Level) -> list[Trajectory]:
        if step > 1 and seconds_of(self.metrics, before=step) >= self.seconds:
            raise OutOfTimeError
        return self.source.batch(step, level=level)

    def validate(self, step: int, *, level: Level) -> list[Trajectory]:
        return self.source.validate(step, level=level)

    def forget_after(self, step: int) -> None:
        self.source.forget_after(step)


def seconds_of(metrics: Path, *, before: int | None = None) -> float:
    """What the steps of a training took."""
    steps = read_metrics(metrics) if metrics.exists() else []
    return sum(
        step.get("collect_s", 0.0) + step.get("learn_s", 0.0)
        for step in steps
        if before is None or step["step"] < before
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be done, and where."""

    data: Path
    out: Path
    overrides: tuple[str, ...]
    num_tests: int
    minutes: float

    def config(self, *changes: str) -> RunConfig:
        """That of GRPO, with changes of a stage; the user's come last."""
        paths = (
            f"retriever.corpus={self.out / 'corpus.jsonl.gz'}",
            f"tasks.files={orjson.dumps(self.questions(TRAINING)).decode()}",
        )
        return load_config(
            ROOT / "configs/end_to_end.toml", overrides=[*paths, *changes, *self.overrides]
        )

    def questions(self, names: Sequence[str]) -> tuple[str, ...]:
        return tuple(str(self.data / f"questions/{name}.jsonl.gz") for name in names)

    def sft(self) -> RunConfig:
        return self.config(*SFT, f'train.data.trajectories=["{self.out / "expert"}"]')

    def test(self) -> RunConfig:
        """Greedy, unseen questions, both context policies."""
        config, files = self.config(), self.questions(TESTS)
        return replace(
            config,
            context=ContextConfig(policies=CONTEXTS),
            sampling=replace(config.sampling, temperature=0.0),
            tasks=TasksConfig(files=files, num_objectives=NUM_OBJECTIVES, per_cell=self.num_tests),
            train=None,
        )


def with_model(config: RunConfig, model: str | Path) -> RunConfig:
    return replace(config, engine=replace(config.engine, model=str(model)))


def make_corpus(plan: Plan) -> None:
    """Put the corpora together: gzip's files one after the other are one."""
    parts = [(plan.data / f"corpora/{name}.jsonl.gz").read_bytes() for name in CORPORA]
    path = plan.out / "corpus.jsonl.gz"
    if not path.exists():
        atomic_write(path, b"".join(parts))


def show_expert(plan: Plan) -> dict[str, Any]:
    """Let the expert play the training tasks once each. Gives how many, and how many are right."""
    from mem1.chat.hf import HFRenderer

    config, started = plan.config(), time.perf_counter()
    renderer = HFRenderer.load(model_path(config.engine.model))
    with RunProgress() as progress:
        make_env = open_world(config, on_progress=progress.index)
        jobs = plan_jobs(
            config,
            tasks=compose_tasks(config.tasks),
            engine=ScriptedEngine((), codec=renderer),
            renderer=renderer,
            make_env=make_env,
        )
    folder = plan.out / "expert"
    done = asyncio.run(shown(jobs, folder=folder, concurrency=config.run.concurrency))
    right = sum(trajectory.reward >= len(trajectory.task.objectives) for trajectory in done)
    return {
        "episodes": len(done),
        "right_in_all": right,
        "seconds": round(time.perf_counter() - started, 1),
    }


def trained(config: RunConfig, *, folder: Path, seconds: float) -> Path:
    """Train, or go on, while there's time. Gives the policy's folder."""
    assert config.train is not None
    with TrainProgress(num_steps=config.train.steps) as progress:
        watcher = TrainWatcher(on_step=progress.step, on_done=progress.episode, warn=progress.warn)
        with open_run(config, folder=folder, watcher=watcher) as run:
            metrics = folder / METRICS_FILE
            source = Timed(source=run.source, seconds=seconds, metrics=metrics)
            try:
                return train(replace(run, source=source))
            except OutOfTimeError:
                run.export(folder / POLICY)
                return folder / POLICY


def tested(config: RunConfig, *, folder: Path) -> Path:
    with RunProgress() as progress:
        watcher = Watcher(on_start=progress.start, on_done=progress.add, on_index=progress.index)
        asyncio.run(evaluate_async(config, folder=folder, watcher=watcher, command=command()))
    return folder


def run(plan: Plan, *, results: Path) -> None:
    """All of it, or what is left of it."""
    make_corpus(plan)
    summary: dict[str, Any] = {"command": " ".join(command()), "expert": show_expert(plan)}
    config = plan.config()
    came = config.engine.model
    places = {name: plan.out / name for name in ("sft", "grpo")}
    seconds = 60 * plan.minutes
    imitated = trained(plan.sft(), folder=places["sft"], seconds=seconds)
    seconds -= seconds_of(places["sft"] / METRICS_FILE)
    learned = trained(with_model(config, imitated), folder=places["grpo"], seconds=seconds)
    tests = [
        tested(with_model(plan.test(), policy), folder=plan.out / name)
        for name, policy in {"came": came, "imitated": imitated, "learned": learned}.items()
    ]
    results.mkdir(parents=True, exist_ok=True)
    report_horizon(tests, out=results, command=command())
    report_html([*tests, *places.values()], out=plan.out / "report.html")
    for name, place in places.items():
        steps = list(read_metrics(place / METRICS_FILE))
        shutil.copy(place / METRICS_FILE, results / f"{name}_metrics.jsonl")
        shutil.copy(place / CONFIG_FILE, results / f"{name}.toml")
        summary[name] = {
            "steps": len(steps),
            "minutes": round(seconds_of(place / METRICS_FILE) / 60, 1),
        }
    atomic_write(results / "curves.svg", curves(steps))
    summary["machine"] = machine()
    atomic_write(results / "summary.json", orjson.dumps(summary, option=orjson.OPT_INDENT_2))
    print(f"report: {results / 'horizon.md'}\nreport: {plan.out / 'report.html'}")


def curves(steps: Sequence[dict[str, Any]]) -> bytes:
    """A panel for each metric, against steps of GRPO."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.6 * len(CURVES), 3), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(CURVES)), CURVES, strict=True):
        told = [step for step in steps if name in step]
        axes.plot([step["step"] for step in told], [step[name] for step in told])
        axes.set(xlabel="step", title=name.replace("_", " "))
        axes.grid(alpha=0.3)
    buffer = io.BytesIO()
    with rc_context({"svg.hashsalt": "mem1"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def machine() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


def dry_run(plan: Plan) -> None:
    """Check all configs, and say what would be done."""
    for name, config in {"sft": plan.sft(), "grpo": plan.config()}.items():
        settings, _ = check_trainable(config)
        size = settings.batch_size * settings.group_size
        num_tasks = len(compose_tasks(config.tasks))
        print(f"{name}: at most {settings.steps} steps of {size} episodes, {num_tasks} tasks")
    config = plan.test()
    window = model_window(config.engine)
    for cell in plan_cells(config, tasks=compose_tasks(config.tasks), window=window):
        bound = f"at most {cell.bound} tokens" if cell.bound else f"up to the window, {window}"
        print(
            f"test: {cell.context_policy}, N = {cell.num_objectives}: {cell.num_tasks} tasks, "
            f"{cell.max_turns} turns, contexts of {cell.problem or bound}"
        )


def command() -> tuple[str, ...]:
    return ("python", "benchmarks/end_to_end.py", *sys.argv[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("runs/end_to_end"))
    parser.add_argument("--results", type=Path, default=ROOT / "docs/results/end_to_end")
    parser.add_argument("--minutes", type=float, default=30, help="of both trainings' steps")
    parser.add_argument("--tests", type=int, default=100, help="tasks of each N")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--dry-run", action="store_true")
    asked = parser.parse_args()
    plan = Plan(
        data=asked.data,
        out=asked.out,
        overrides=tuple(asked.set),
        num_tests=asked.tests,
        minutes=asked.minutes,
    )
    try:
        dry_run(plan) if asked.dry_run else run(plan, results=asked.results)
    except UserError as error:
        sys.exit(f"mem1: {error}")


if __name__ == "__main__":
    main()
