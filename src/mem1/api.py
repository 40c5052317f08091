"""What the commands do, as functions, sync and async.

    question, RunConfig -> ask           -> Trajectory
    RunConfig, folder   -> rollout_async -> [Trajectory], kept in the folder
    RunConfig, folder   -> evaluate      -> EvalReport, written into the folder
    run folders         -> report_html    -> one file to look at them
    run folders         -> report_horizon -> HorizonReport, written into the first of them

>>> import mem1                                                          # doctest: +SKIP
>>> config = mem1.load_config("configs/demo.toml")                       # doctest: +SKIP
>>> mem1.ask("Who wrote Dracula?", config=config).answer                 # doctest: +SKIP
"""

import asyncio
import hashlib
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mem1.config import CONFIG_FILE, ContextConfig, RunConfig, load_config, save_config
from mem1.errors import ConfigError, StoreError
from mem1.evals import (
    EvalReport,
    HorizonReport,
    build_horizon,
    build_report,
    write_horizon,
    write_report,
)
from mem1.evals.run import TRAJECTORIES_FILE, run_jobs
from mem1.rollout import TrajectoryStore, latest, run_episode
from mem1.settings import to_table
from mem1.types import Objective, Task, Trajectory, Turn
from mem1.viewer.html import HTML_FILE, NUM_TRAJECTORIES, write_html
from mem1.wiring import open_engine, plan_jobs, run_decoder
from mem1.worlds import compose_tasks, open_tools, open_world, question_world


@dataclass(frozen=True, slots=True, kw_only=True)
class Watcher:
    """Is told how a run goes; what isn't given is not told."""

    on_index: Callable[[int, int], None] | None = None
    """Passages indexed so far, and how many there are (0: not known yet)."""
    on_start: Callable[[int, int], None] | None = None
    """Episodes done already, and how many there are."""
    on_done: Callable[[Trajectory], None] | None = None
    """Each new trajectory."""


async def ask_async(
    *questions: str,
    config: RunConfig,
    folder: Path | None = None,
    on_turn: Callable[[Turn, int | None], None] | None = None,
    watcher: Watcher | None = None,
) -> Trajectory:
    """Ask an agent one question, or several at once, with the first context policy of the config.

    Args: `folder`, where the trajectory is kept, if anywhere; `on_turn`, called after every turn
    with the bound on the context.
    """
    watcher = watcher or Watcher()
    config = replace(config, context=ContextConfig(policies=config.context.policies[:1]))
    task = question_task(*questions)
    async with (
        open_tools(config.tools) as toolbox,
        open_engine(config.engine) as (engine, renderer),
    ):
        make_env = question_world(config, toolbox=toolbox, on_progress=watcher.on_index)
        job, *_ = plan_jobs(
            config, tasks=[task], engine=engine, renderer=renderer, make_env=make_env
        )
        bound = job.agent.bound()
        trajectory = await run_episode(
            task,
            agent=job.agent,
            env=job.make_env(task),
            reward=job.reward,
            on_turn=(lambda turn: on_turn(turn, bound)) if on_turn else None,
        )
    if folder:
        with TrajectoryStore(folder / TRAJECTORIES_FILE) as store:
            store.append(trajectory)
    return trajectory


def ask(*questions: str, config: RunConfig, folder: Path | None = None) -> Trajectory:
    """`ask_async` for code that isn't async."""
    return asyncio.run(ask_async(*questions, config=config, folder=folder))


def question_task(*questions: str) -> Task:
    """A task of questions whose answers nobody knows yet; the same questions make the same id."""
    digest = hashlib.blake2b("\n".join(questions).encode(), digest_size=6).hexdigest()
    return Task(
        id=f"question-{digest}",
        objectives=tuple(Objective(question=question, answers=()) for question in questions),
        source="question",
    )


async def rollout_async(
    config: RunConfig, *, folder: Path, limit: int | None = None, watcher: Watcher | None = None
) -> list[Trajectory]:
    """Run all tasks with all context policies; what the folder holds already isn't run again.

    Args: `limit`, at most so many tasks for each number of objectives.
    Raises: StoreError if the folder belongs to a run with other settings.
    """
    watcher = watcher or Watcher()
    tasks = compose_tasks(config.tasks, limit=limit)
    save_config(config, folder)
    async with (
        open_tools(config.tools) as toolbox,
        open_engine(config.engine) as (engine, renderer),
    ):
        make_env = open_world(config, toolbox=toolbox, on_progress=watcher.on_index)
        jobs = plan_jobs(config, tasks=tasks, engine=engine, renderer=renderer, make_env=make_env)
        on_start = watcher.on_start
        return await run_jobs(
            jobs,
            folder=folder,
            concurrency=config.run.concurrency,
            on_start=(lambda done: on_start(done, len(jobs))) if on_start else None,
            on_done=watcher.on_done,
        )


async def evaluate_async(
    config: RunConfig,
    *,
    folder: Path,
    limit: int | None = None,
    watcher: Watcher | None = None,
    command: Sequence[str] = (),
) -> EvalReport:
    """`rollout_async`, then the report on all of its trajectories: report.json, .md, .html, plots.

    Args: `command`, what the user typed, for the report.
    """
    await rollout_async(config, folder=folder, limit=limit, watcher=watcher)
    report = report_run(folder, command=command)
    report_html([folder])
    return report


def evaluate(config: RunConfig, *, folder: Path, limit: int | None = None) -> EvalReport:
    """`evaluate_async` for code that isn't async."""
    return asyncio.run(evaluate_async(config, folder=folder, limit=limit))


def report_run(folder: Path, *, command: Sequence[str] = ()) -> EvalReport:
    """Write the report on all trajectories that a run folder holds.

    Raises: StoreError if it holds none.
    """
    trajectories, config = _read_run(folder)
    report = build_report(trajectories, command=shlex.join(command), config=to_table(config))
    write_report(report, folder)
    return report


def report_html(
    folders: Sequence[Path], *, out: Path | None = None, num_trajectories: int = NUM_TRAJECTORIES
) -> Path:
    """Write one HTML file that shows run folders, evaluations and trainings, and gives its path.

    Args: `out`, the file; without it, report.html in the first folder; `num_trajectories`, of each
    run, that can be looked at.
    Raises: DataError for a folder that isn't there.
    """
    path = out or folders[0] / HTML_FILE
    return write_html(folders, path, decoder_of=run_decoder, num_trajectories=num_trajectories)


def report_horizon(
    folders: Sequence[Path], *, out: Path | None = None, command: Sequence[str] = ()
) -> HorizonReport:
    """Write what becomes of the agents of some run folders as N grows: horizon.json, .md and .svg.

    Args: `out`, where to; without it, the first folder.
    Raises: StoreError if a folder holds no trajectories, ConfigError if none is named or one twice.
    """
    labels = _labels(folders)
    runs = ((label, _read_run(folder)[0]) for label, folder in labels.items())
    report = build_horizon(runs, command=shlex.join(command))
    write_horizon(report, out or folders[0])
    return report


def _labels(folders: Sequence[Path]) -> dict[str, Path]:
    """Short names of run folders: the last part of each path, or all of it where that's shared."""
    if not folders:
        raise ConfigError("no run folder: name those of  mem1 eval, for example runs/demo")
    names = [folder.resolve().name for folder in folders]
    labels = {
        name if names.count(name) == 1 else str(folder): folder
        for name, folder in zip(names, folders, strict=True)
    }
    if len(labels) < len(folders):
        raise ConfigError(f"a run folder is named twice: {', '.join(map(str, folders))}")
    return labels


def _read_run(folder: Path) -> tuple[list[Trajectory], RunConfig]:
    """Its trajectories, in the order of the config's policies."""
    path = folder / TRAJECTORIES_FILE
    trajectories = list(latest(path).values())
    if not trajectories:
        raise StoreError(f"{path}: no trajectories: run  mem1 eval  first, or name its folder")
    config = load_config(folder / CONFIG_FILE)
    rank = {str(policy): number for number, policy in enumerate(config.policies())}
    trajectories.sort(key=lambda trajectory: rank.get(trajectory.context_policy, len(rank)))
    return trajectories, config
