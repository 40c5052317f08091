"""The command line: parse, call, print.

    mem1 run "question" --config configs/demo.toml     one episode, turn by turn
    mem1 eval configs/demo.toml                        tasks x context policies -> report
    mem1 rollout configs/demo.toml                     the trajectories alone
    mem1 report runs/demo                              the report of a run, written again
    mem1 report --horizon runs/demo runs/large         what becomes of agents as N grows
    mem1 train configs/learn.toml                      a policy, trained on what it ran
    mem1 verify --model FOLDER                         trained = run, as a number
    mem1 data compose | index                          prepare tasks and corpora

Results go to standard output, everything else to standard error. Exit status: 0; 1 if episodes
or an engine failed, or a model is not exact; 2 for a mistake of the user; 130 if interrupted.
Commands import what they need when they run, so that `mem1 --help` is quick.
"""

import asyncio
import importlib.metadata
import json
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, CycloptsError, Parameter

from mem1.errors import ConfigError, Mem1Error, StoreError, UserError

if TYPE_CHECKING:
    from rich.console import Console

    from mem1.api import Watcher
    from mem1.config import RunConfig
    from mem1.evals import EvalReport, HorizonReport
    from mem1.types import Trajectory

_PLAIN = Parameter(negative=(), show_default=False)
app = App(
    name="mem1",
    help="LLM agents whose context never grows: run them, train them, measure them.",
    version=lambda: importlib.metadata.version("mem1-rl"),
    default_parameter=_PLAIN,
    suppress_keyboard_interrupt=False,
)
data = App(name="data", help="Prepare tasks and corpora.", default_parameter=_PLAIN)
app.command(data)

Sets = Annotated[
    tuple[str, ...],
    Parameter(name="--set", help="Change a setting: section.key=value. May be repeated."),
]
Limit = Annotated[
    int | None, Parameter(help="At most so many tasks for each number of objectives.")
]
AsJson = Annotated[bool, Parameter(name="--json", help="Print JSON and nothing else.")]
DryRun = Annotated[bool, Parameter(help="Say what would run, and run nothing.")]
Out = Annotated[
    Path | None, Parameter(help="The run's folder; without it, runs/ and the config's name.")
]
Configs = Annotated[Path, Parameter(help="TOML files, later over earlier.")]


def main() -> None:
    """The `mem1` command."""
    # Model libraries draw bars and print hints of their own, which would tear ours apart.
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    sys.exit(run_command(sys.argv[1:]))


def run_command(arguments: Sequence[str]) -> int:
    """Run one command and give its exit status."""
    try:
        status = app(arguments, exit_on_error=False, result_action="return_value")
    except CycloptsError:
        return 2
    except KeyboardInterrupt:
        _note("stopped: what is finished is kept; the same command continues where this one ended")
        return 130
    except Mem1Error as error:
        _note(f"mem1: {error}")
        return 2 if isinstance(error, UserError) else 1
    return status or 0


def _note(text: str) -> None:
    print(text, file=sys.stderr)


@app.command
def run(
    *questions: Annotated[str, Parameter(help="One question, or several to ask at once.")],
    config: Annotated[
        tuple[Path, ...], Parameter(help="TOML file; may be repeated, later over earlier.")
    ] = (),
    context: Annotated[
        str | None, Parameter(help="Context policy, for example full or 'window(k=2)'.")
    ] = None,
    overrides: Sets = (),
    out: Annotated[Path, Parameter(help="Where the trajectory is kept.")] = Path("runs/questions"),
    as_json: AsJson = False,
) -> int:
    """Ask a question and watch the agent work on it, turn by turn."""
    from mem1.api import ask_async
    from mem1.rollout.store import dump_trajectory
    from mem1.types import FAILURES, Turn

    if not questions:
        raise ConfigError('no question: write  mem1 run "Who wrote Dracula?" --config FILE')
    if context:
        overrides = (*overrides, f"context.policies={json.dumps([context])}")
    settings = _load(config, overrides=overrides)
    console, turns = _console(), 0

    def show(turn: Turn, bound: int | None) -> None:
        from mem1.console import show_turn

        nonlocal turns
        turns += 1
        show_turn(console, turn, number=turns, bound=bound)

    on_turn = None if as_json else show
    _note(f"opening {settings.engine.model} …")
    trajectory = asyncio.run(ask_async(*questions, config=settings, folder=out, on_turn=on_turn))
    if as_json:
        print(dump_trajectory(trajectory).decode())
    else:
        from mem1.console import show_outcome

        show_outcome(console, trajectory)
        _note(f"trajectory appended to {out / 'trajectories.jsonl'}")
    return int(trajectory.stop_reason in FAILURES)


@app.command(name="eval")
def evaluate(
    *configs: Configs,
    overrides: Sets = (),
    limit: Limit = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    out: Out = None,
) -> int:
    """Run all tasks with all context policies and report; continues a run that was stopped."""
    settings = _load(configs, overrides=overrides)
    if dry_run:
        return _dry_run(settings, limit=limit, as_json=as_json, samples=settings.run.samples)
    from mem1.api import evaluate_async
    from mem1.evals.run import TRAJECTORIES_FILE
    from mem1.rollout import latest

    folder = out or _default_folder(configs)
    command = ("mem1", *sys.argv[1:])
    with ExitStack() as stack:
        watcher = _watch(stack)
        written = asyncio.run(
            evaluate_async(settings, folder=folder, limit=limit, watcher=watcher, command=command)
        )
    _print_report(written, folder=folder, as_json=as_json)
    return _failures(list(latest(folder / TRAJECTORIES_FILE).values()))


@app.command
def rollout(
    *configs: Configs,
    overrides: Sets = (),
    limit: Limit = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    out: Out = None,
) -> int:
    """Collect trajectories, like eval without the report."""
    settings = _load(configs, overrides=overrides)
    if dry_run:
        return _dry_run(settings, limit=limit, as_json=as_json, samples=settings.run.samples)
    from mem1.api import rollout_async
    from mem1.evals.run import TRAJECTORIES_FILE

    folder = out or _default_folder(configs)
    with ExitStack() as stack:
        watcher = _watch(stack)
        trajectories = asyncio.run(
            rollout_async(settings, folder=folder, limit=limit, watcher=watcher)
        )
    path = folder / TRAJECTORIES_FILE
    if as_json:
        print(json.dumps({"trajectories": str(path), "count": len(trajectories)}))
    else:
        print(f"{len(trajectories)} trajectories in {path}")
    return _failures(trajectories)


@app.command
def train(*configs: Configs, overrides: Sets = (), dry_run: DryRun = False, out: Out = None) -> int:
    """Train a policy; continues a run that was stopped."""
    settings = _load(configs, overrides=overrides)
    if settings.train is None:
        raise ConfigError("train is missing: add  [train]  with an algorithm and steps")
    from mem1.console import TrainProgress
    from mem1.training import TrainWatcher, check_trainable, train_policy

    if dry_run:
        check_trainable(settings)
        samples = settings.train.group_size if settings.train.algorithm != "sft" else 0
        return _dry_run(settings, limit=None, as_json=False, samples=samples)

    folder = out or _default_folder(configs)
    with TrainProgress(num_steps=settings.train.steps) as progress:
        watcher = TrainWatcher(
            on_step=progress.step,
            on_done=progress.episode,
            on_index=progress.index,
            warn=progress.warn,
        )
        policy = train_policy(settings, folder=folder, watcher=watcher)
    print(f"policy: {policy}\nmetrics: {folder / 'metrics.jsonl'}")
    return 0


@app.command
def verify(
    *,
    model: Annotated[str, Parameter(help="A folder, a .gguf file, or package:NAME/FILE.")],
    trajectories: Annotated[
        tuple[Path, ...],
        Parameter(help="Trajectory files; without any, episodes are sampled now."),
    ] = (),
    dtype: Annotated[str, Parameter(help="float32, float64 or bfloat16.")] = "float32",
    as_json: AsJson = False,
) -> int:
    """Measure whether what would be trained is what was run, in nats."""
    from mem1.config import LocalConfig
    from mem1.console import show_verified
    from mem1.settings import build
    from mem1.verification import verify_model

    config = build(LocalConfig, {"model": model, "dtype": dtype}, at="verify")
    found = []
    for verified in verify_model(config, trajectories=trajectories):
        _note(f"verified {verified.context_policy}, {verified.mode}")
        found.append(verified)
    if as_json:
        print(json.dumps([asdict(verified) for verified in found]))
    else:
        show_verified(_console(), found)
    return int(not all(verified.report.exact for verified in found))


@app.command
def report(
    *run_folders: Annotated[Path, Parameter(help="Folders of mem1 eval.")],
    horizon: Annotated[
        bool, Parameter(help="One report on all folders: what becomes of agents as N grows.")
    ] = False,
    out: Annotated[
        Path | None, Parameter(help="Folder of the horizon report; else the first run's.")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Write the report of a run again, from its trajectories; with --horizon, one of several."""
    from mem1.api import report_horizon, report_run

    command = ("mem1", *sys.argv[1:])
    if horizon:
        found = report_horizon(run_folders, out=out, command=command)
        _print_horizon(found, folder=out or run_folders[0], as_json=as_json)
        return 0
    if out or len(run_folders) != 1:
        raise ConfigError(
            "a report is written into its one run folder: name one, or add --horizon for a report "
            "on several"
        )
    (folder,) = run_folders
    _print_report(report_run(folder, command=command), folder=folder, as_json=as_json)
    return 0


@data.command
def compose(
    *files: Annotated[Path, Parameter(help="Question files: JSONL, JSONL.gz or parquet.")],
    num_objectives: Annotated[int, Parameter(help="Questions in one task.")],
    seed: Annotated[int, Parameter(help="Of the shuffle.")] = 0,
    limit: Annotated[int | None, Parameter(help="At most so many tasks.")] = None,
    out: Annotated[Path, Parameter(name=["--out", "-o"], help="The task file to write.")],
) -> int:
    """Compose single questions into tasks of several objectives."""
    from mem1.config import TasksConfig
    from mem1.tasks import write_tasks
    from mem1.wiring import compose_tasks

    config = TasksConfig(
        files=tuple(map(str, files)), num_objectives=(num_objectives,), per_cell=limit, seed=seed
    )
    tasks = compose_tasks(config)
    write_tasks(tasks, out)
    print(f"{len(tasks)} tasks of {num_objectives} objectives in {out}")
    return 0


@data.command
def index(corpus: Path) -> int:
    """Index a corpus for the BM25 retriever; eval and run do so themselves if need be."""
    from mem1.tools import BM25Index

    with ExitStack() as stack:
        passages = len(BM25Index.open(corpus, on_progress=_watch(stack).on_index))
    print(f"{corpus}: {passages} passages indexed")
    return 0


def _load(files: Sequence[Path], *, overrides: Sequence[str]) -> "RunConfig":
    from mem1.config import load_config

    if not files and not overrides:
        raise ConfigError("no config: name a TOML file, for example configs/demo.toml")
    return load_config(*files, overrides=overrides)


def _default_folder(configs: Sequence[Path]) -> Path:
    if not configs:
        raise StoreError("without a config file the run has no name: name its folder with --out")
    return Path("runs") / "+".join(path.stem for path in configs)


def _dry_run(config: "RunConfig", *, limit: int | None, as_json: bool, samples: int) -> int:
    """Print config and cells. Args: `samples`, episodes of each task and policy; 0: the tasks are
    not played at all."""
    from mem1.console import show_plan
    from mem1.settings import dump_toml, to_table
    from mem1.wiring import compose_tasks, model_window, plan_cells

    window = model_window(config.engine)
    tasks = compose_tasks(config.tasks, limit=limit) if samples else []
    cells = plan_cells(config, tasks=tasks, window=window)
    if as_json:
        plan: dict[str, Any] = {"config": to_table(config), "window": window}
        print(json.dumps(plan | {"cells": [asdict(cell) for cell in cells]}))
    else:
        print(dump_toml(to_table(config)))
        show_plan(_console(), cells, window=window, samples=samples)
    problems = dict.fromkeys(cell.problem for cell in cells if cell.problem)
    for problem in problems:
        _note(f"mem1: {problem}")
    return 2 if problems else 0


def _print_report(report: "EvalReport", *, folder: Path, as_json: bool) -> None:
    from mem1.console import show_report

    if as_json:
        print((folder / "report.json").read_text("utf-8"))
    else:
        show_report(_console(), report)
        print(f"report: {folder / 'report.md'}")


def _print_horizon(report: "HorizonReport", *, folder: Path, as_json: bool) -> None:
    from mem1.console import show_horizon

    if as_json:
        print((folder / "horizon.json").read_text("utf-8"))
    else:
        show_horizon(_console(), report)
        print(f"report: {folder / 'horizon.md'}")


def _failures(trajectories: "Sequence[Trajectory]") -> int:
    """Tell of episodes that failed; exit status 1 if there are any."""
    from mem1.types import FAILURES

    failed = [t for t in trajectories if t.stop_reason in FAILURES]
    if failed:
        first = failed[0]
        _note(
            f"mem1: {len(failed)} of {len(trajectories)} episodes failed, the first with "
            f"{first.stop_reason}: {first.error}; the same command tries them again"
        )
    return int(bool(failed))


def _console() -> "Console":
    from rich.console import Console

    return Console()


def _watch(stack: ExitStack) -> "Watcher":
    from mem1.api import Watcher
    from mem1.console import RunProgress

    progress = stack.enter_context(RunProgress())
    return Watcher(on_index=progress.index, on_start=progress.start, on_done=progress.add)


if __name__ == "__main__":
    main()
