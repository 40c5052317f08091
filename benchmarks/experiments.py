"""What a tiny policy teaches about training a memory: trials that begin as the demo does.

    OMP_NUM_THREADS=1 python benchmarks/experiments.py algorithms rows     (some, or all)
      -> runs/experiments/START/TRIAL-SEED/   as  mem1 train  and  mem1 eval  leave them
      -> docs/results/algorithms/             results.json, table.md, curves.svg
      -> docs/experiments.md                  the same table, where the page has room for it

The trials are in benchmarks/trials.py, what they ask in docs/experiments.md. All are tested on
unseen tasks of one to sixteen objectives, at the temperature of training. Figures are means and
95 % intervals (Student's t) over seeds; results are written after each seed. A trial goes on where
it was stopped, one that another experiment has trained is taken as it is, and START changes with
the demo's start and config.
"""

import argparse
import asyncio
import fcntl
import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any
from unittest.mock import patch

import orjson
from results import curves, tables
from rewrites import ones
from trials import EXPERIMENTS, NUM_OBJECTIVES, ROOT, TRIALS, Trial, config_of
from warm_start import SIZE

from mem1.api import Watcher, evaluate_async
from mem1.config import LedgerTasks
from mem1.console import RunProgress, TrainProgress
from mem1.evals import EvalReport
from mem1.evals.memory import MEMORY_METRICS
from mem1.files import atomic_write
from mem1.train import losses
from mem1.train.curriculum import Level
from mem1.train.logbook import METRICS_FILE, read_metrics
from mem1.train.sources import Source
from mem1.train.tiny import make_tiny
from mem1.train.trainer import POLICY, train
from mem1.training import TrainWatcher, open_run
from mem1.types import Trajectory

RUNS, RESULTS = ROOT / "runs/experiments", ROOT / "docs/results"
PAGE = ROOT / "docs/experiments.md"
NUM_TASKS = 64
"""Of each N; no policy has seen them."""
TESTED = (
    "em",
    "answer_rate",
    "turns_per_objective",
    "valid_turns",
    "peak_tokens",
    "state_tokens",
    *MEMORY_METRICS,
)
"""Figures of a test, of each N."""
SUMS = {
    "reply_tokens": "generated_tokens",
    "row_tokens": "packed_tokens",
    "sampler_tokens": "unpacked_tokens",
    "collect_s": "collect_s",
    "learn_s": "learn_s",
}
"""Figures of a training: sums over steps, of which metric."""
MEANS = ("logprob_gap", "clip_fraction")
"""Means over steps, where there are any."""


class SpentError(Exception):
    """A trial has sampled what it may."""


@dataclass(frozen=True, slots=True)
class TrialSource:
    """What a trial learns from."""

    source: Source
    trial: Trial
    metrics: Path
    """Of the steps so far: a trial that goes on knows what it has sampled."""

    def batch(self, step: int, *, level: Level) -> list[Trajectory]:
        if self.trial.most_tokens is not None:
            steps = read_metrics(self.metrics)
            sizes = [record["generated_tokens"] for record in steps if record["step"] < step]
            if is_spent(sizes, most=self.trial.most_tokens):
                raise SpentError
        return self.trial.rewrite(self.source.batch(step, level=level))

    def validate(self, step: int, *, level: Level) -> list[Trajectory]:
        return self.source.validate(step, level=level)

    def forget_after(self, step: int) -> None:
        self.source.forget_after(step)


def is_spent(sizes: Sequence[float], *, most: int) -> bool:
    """Whether one more step as large as the last would miss `most` by more than stopping does.

    >>> is_spent([40, 40], most=100), is_spent([40, 40, 40], most=100)
    (False, True)
    """
    return bool(sizes) and sum(sizes) + sizes[-1] / 2 > most


def trained(trial: Trial, *, seed: int, folder: Path) -> Path:
    """Train, or go on. Gives the policy's folder."""
    config = config_of(trial, seed=seed)
    assert config.train is not None
    weights = losses.importance_weights if trial.corrected else ones
    with TrainProgress(num_steps=config.train.steps) as progress:
        watcher = TrainWatcher(on_step=progress.step, on_done=progress.episode, warn=progress.warn)
        with (
            patch.object(losses, "importance_weights", weights),
            open_run(config, folder=folder, watcher=watcher) as run,
        ):
            source = TrialSource(run.source, trial, folder / METRICS_FILE)
            try:
                return train(replace(run, source=source))
            except SpentError:
                run.export(folder / POLICY)
                return folder / POLICY


def tested(trial: Trial, *, seed: int, policy: Path, folder: Path) -> EvalReport:
    """The policy on unseen tasks of each N."""
    config = config_of(trial, seed=seed)
    tasks = LedgerTasks(num_objectives=NUM_OBJECTIVES, count=NUM_TASKS, seed=11)
    engine = replace(config.engine, model=str(policy))
    config = replace(config, engine=engine, tasks=tasks, validation=None, train=None)
    with RunProgress() as progress:
        watcher = Watcher(on_start=progress.start, on_done=progress.add)
        return asyncio.run(evaluate_async(config, folder=folder, watcher=watcher))


def play(name: str, *, seed: int, folder: Path) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Train and test, or go on. Gives the figures, and the metrics of the steps."""
    trial, place = TRIALS[name], folder / f"{re.sub('[^A-Za-z0-9+]+', '-', name)}-{seed}"
    steps: list[dict[str, Any]] = []
    with alone_in(place):
        policy = Path(config_of(trial, seed=seed).engine.model)
        if trial.untrained:
            policy = place / POLICY
            make_tiny(policy, seed=0, **SIZE)
        if trial.trains:
            policy = trained(trial, seed=seed, folder=place)
            steps = [step for step in read_metrics(place / METRICS_FILE) if "loss" in step]
        report = tested(trial, seed=seed, policy=policy, folder=place / "test")
    return of_test(report) | of_training(steps), steps


@contextmanager
def alone_in(place: Path) -> Iterator[None]:
    """Waits for another process that plays the same trial: experiments share some."""
    place.mkdir(parents=True, exist_ok=True)
    with (place / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def of_test(report: EvalReport) -> dict[str, float]:
    """The figures of each N, `em_16` and so on; em is per objective."""
    return {
        f"{name}_{size}": cell.estimates[name].mean / (size if name == "em" else 1)
        for cell in report.cells
        for size in [cell.num_objectives]
        for name in TESTED
        if name in cell.estimates
    }


def of_training(steps: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The figures of a training; none of a policy that was only tested."""
    if not steps:
        return {}
    found = {name: float(sum(step[key] for step in steps)) for name, key in SUMS.items()}
    found["num_steps"] = len(steps)
    found |= {name: fmean(step[name] for step in steps) for name in MEANS if name in steps[0]}
    if "logprob_gap_max" in steps[0]:
        found["logprob_gap_max"] = max(step["logprob_gap_max"] for step in steps)
    if "level" in steps[0]:
        found["last_level"] = steps[-1]["level"]
    return found


def experiment(name: str, *, seeds: Sequence[int]) -> None:
    """Play the trials of each seed, and write what is known after it."""
    start = start_digest()
    figures: dict[str, list[dict[str, float]]] = {}
    steps: dict[str, list[list[dict[str, Any]]]] = {}
    for number, seed in enumerate(seeds, start=1):
        for trial in EXPERIMENTS[name].trials:
            print(f"{name}: {trial}, seed {seed}", flush=True)
            found, made = play(trial, seed=seed, folder=RUNS / start)
            figures.setdefault(trial, []).append(found)
            steps.setdefault(trial, []).append(made)
        write(name, seeds=seeds[:number], start=start, figures=figures, steps=steps)


def start_digest() -> str:
    """What all trials begin with: the config, and the weights that it names."""
    config = ROOT / "configs/learn.toml"
    weights = ROOT / config_of(Trial(), seed=0).engine.model / "model.safetensors"
    read = config.read_bytes() + weights.read_bytes()
    return hashlib.blake2b(read, digest_size=4).hexdigest()


def write(
    name: str,
    *,
    seeds: Sequence[int],
    start: str,
    figures: dict[str, list[dict[str, float]]],
    steps: dict[str, list[list[dict[str, Any]]]],
) -> None:
    folder, shown = RESULTS / name, EXPERIMENTS[name]
    record = {
        "command": f"OMP_NUM_THREADS=1 python benchmarks/experiments.py {name}",
        "start": start,
        "seeds": list(seeds),
        "trials": figures,
    }
    text = tables(shown, figures=figures, seeds=seeds, start=start)
    atomic_write(folder / "results.json", orjson.dumps(record, option=orjson.OPT_INDENT_2))
    atomic_write(folder / "table.md", text)
    if shown.curves:
        atomic_write(folder / "curves.svg", curves(shown, steps=steps))
    atomic_write(PAGE, with_results(PAGE.read_text("utf-8"), name=name, text=text))
    print(text)


def with_results(page: str, *, name: str, text: str) -> str:
    """The page, with an experiment's tables between its marks.

    >>> with_results("<!-- rows -->old<!-- /rows -->", name="rows", text="new")
    '<!-- rows -->\\nnew\\n<!-- /rows -->'
    """
    before, _, rest = page.partition(f"<!-- {name} -->")
    _, end, after = rest.partition(f"<!-- /{name} -->")
    assert end, f"{PAGE} has no room for {name}"
    return f"{before}<!-- {name} -->\n{text.strip()}\n{end}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *EXPERIMENTS], help="none: all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    asked = parser.parse_args()
    for name in asked.names or EXPERIMENTS:
        experiment(name, seeds=asked.seeds)


if __name__ == "__main__":
    main()
