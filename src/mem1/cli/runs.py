"""Commands that run agents and report on them."""

import asyncio
import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from mem1.cli.options import (
    AsJson,
    Configs,
    DryRun,
    Limit,
    Out,
    Sets,
    default_folder,
    failures,
    load,
    note,
    plan,
    screen,
    watch,
)
from mem1.errors import ConfigError

if TYPE_CHECKING:
    from mem1.evals import EvalReport, HorizonReport


def run(
    *questions: Annotated[str, Parameter(help="One question, or several to ask at once.")],
    config: Annotated[
        tuple[Path, ...], Parameter(help="TOML file; may be repeated, later over earlier.")
    ] = (),
    context: Annotated[
        str | None, Parameter(help="Context policy, for example full or 'window(k=2)'.")
    ] = None,
    mcp: Annotated[
        tuple[str, ...], Parameter(help="MCP server whose tools the agent may call; repeatable.")
    ] = (),
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
    if mcp:
        overrides = (*overrides, f"tools.mcp={json.dumps(mcp)}")
    settings = load(config, overrides=overrides)
    console, turns = screen(), 0

    def show(turn: Turn, bound: int | None) -> None:
        from mem1.console import show_turn

        nonlocal turns
        turns += 1
        show_turn(console, turn, number=turns, bound=bound)

    on_turn = None if as_json else show
    note(f"opening {settings.engine.model} …")
    trajectory = asyncio.run(ask_async(*questions, config=settings, folder=out, on_turn=on_turn))
    if as_json:
        print(dump_trajectory(trajectory).decode())
    else:
        from mem1.console import show_outcome

        show_outcome(console, trajectory)
        note(f"trajectory appended to {out / 'trajectories.jsonl'}")
    return int(trajectory.stop_reason in FAILURES)


def evaluate(
    *configs: Configs,
    overrides: Sets = (),
    limit: Limit = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    out: Out = None,
) -> int:
    """Run all tasks with all context policies and report; continues a run that was stopped."""
    settings = load(configs, overrides=overrides)
    if dry_run:
        return plan(settings, limit=limit, as_json=as_json, samples=settings.run.samples)
    from mem1.api import evaluate_async
    from mem1.evals.run import TRAJECTORIES_FILE
    from mem1.rollout import latest

    folder = out or default_folder(configs)
    command = ("mem1", *sys.argv[1:])
    with ExitStack() as stack:
        watcher = watch(stack)
        written = asyncio.run(
            evaluate_async(settings, folder=folder, limit=limit, watcher=watcher, command=command)
        )
    _print_report(written, folder=folder, as_json=as_json)
    if not as_json:
        print(f"report: {folder / 'report.html'}")
    return failures(list(latest(folder / TRAJECTORIES_FILE).values()))


def rollout(
    *configs: Configs,
    overrides: Sets = (),
    limit: Limit = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    out: Out = None,
) -> int:
    """Collect trajectories, like eval without the report."""
    settings = load(configs, overrides=overrides)
    if dry_run:
        return plan(settings, limit=limit, as_json=as_json, samples=settings.run.samples)
    from mem1.api import rollout_async
    from mem1.evals.run import TRAJECTORIES_FILE

    folder = out or default_folder(configs)
    with ExitStack() as stack:
        watcher = watch(stack)
        trajectories = asyncio.run(
            rollout_async(settings, folder=folder, limit=limit, watcher=watcher)
        )
    path = folder / TRAJECTORIES_FILE
    if as_json:
        print(json.dumps({"trajectories": str(path), "count": len(trajectories)}))
    else:
        print(f"{len(trajectories)} trajectories in {path}")
    return failures(trajectories)


def report(
    *run_folders: Annotated[Path, Parameter(help="Folders of mem1 eval and mem1 train.")],
    horizon: Annotated[
        bool, Parameter(help="One report on all folders: what becomes of agents as N grows.")
    ] = False,
    out: Annotated[
        Path | None,
        Parameter(
            name=["--out", "-o"],
            help="The HTML file, or the folder of the horizon report; else in the first run.",
        ),
    ] = None,
    trajectories: Annotated[
        int, Parameter(help="Trajectories of each run that the HTML file shows.")
    ] = 24,
    as_json: AsJson = False,
) -> int:
    """Write the report of runs again, from their trajectories: Markdown, JSON, one HTML file."""
    from mem1.api import report_horizon, report_html, report_run
    from mem1.viewer.runs import is_training

    if not run_folders:
        raise ConfigError("no run folder: name some, for example  mem1 report runs/demo")
    command = ("mem1", *sys.argv[1:])
    if horizon:
        found = report_horizon(run_folders, out=out, command=command)
        _print_horizon(found, folder=out or run_folders[0], as_json=as_json)
        return 0
    if out and out.suffix != ".html":
        raise ConfigError(
            f"-o {out}: the report of runs is an .html file; a folder is for --horizon"
        )
    for folder in run_folders:
        if not is_training(folder):
            _print_report(report_run(folder, command=command), folder=folder, as_json=as_json)
    written = report_html(run_folders, out=out, num_trajectories=trajectories)
    (note if as_json else print)(f"report: {written}")
    return 0


def _print_report(report: "EvalReport", *, folder: Path, as_json: bool) -> None:
    from mem1.console import show_report

    if as_json:
        print((folder / "report.json").read_text("utf-8"))
    else:
        show_report(screen(), report)
        print(f"report: {folder / 'report.md'}")


def _print_horizon(report: "HorizonReport", *, folder: Path, as_json: bool) -> None:
    from mem1.console import show_horizon

    if as_json:
        print((folder / "horizon.json").read_text("utf-8"))
    else:
        show_horizon(screen(), report)
        print(f"report: {folder / 'horizon.md'}")
