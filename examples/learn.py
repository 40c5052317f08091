"""Watch a policy of a third of a million parameters learn to remember, on two CPU cores.

    python examples/learn.py [SEED] [FOLDER]

Two agents begin where an imperfect expert left them. One sees its notes, its last action and the
last observation; the other sees everything. Each is trained by PPO on tasks of two questions, and
tested before and after on two to sixteen. Ends with a table of both, and where the report is.
"""

import asyncio
import sys
from dataclasses import replace
from pathlib import Path

from rich.console import Console

import mem1
from mem1 import RunConfig
from mem1.api import Watcher, evaluate_async, report_horizon, report_html
from mem1.console import RunProgress, TrainProgress, show_horizon
from mem1.training import TrainWatcher, train_policy

NUM_OBJECTIVES = (2, 4, 8, 16)
NUM_TASKS = 100


def train(config: RunConfig, folder: Path) -> RunConfig:
    """Train a policy, and give the config that runs it."""
    assert config.train is not None
    with TrainProgress(num_steps=config.train.steps) as progress:
        watcher = TrainWatcher(on_step=progress.step, on_done=progress.episode, warn=progress.warn)
        policy = train_policy(config, folder=folder, watcher=watcher)
    return replace(config, engine=replace(config.engine, model=str(policy)))


def test(config: RunConfig, folder: Path) -> Path:
    """Test a policy on tasks that it has never seen."""
    tasks = replace(config.tasks, num_objectives=NUM_OBJECTIVES, seed=11, count=NUM_TASKS)
    with RunProgress() as progress:
        watcher = Watcher(on_start=progress.start, on_done=progress.add)
        config = replace(config, tasks=tasks, validation=None, train=None)
        asyncio.run(evaluate_async(config, folder=folder, watcher=watcher))
    return folder


def main(seed: int = 0, folder: Path = Path("runs/learn")) -> None:
    console, place = Console(stderr=True), folder / f"seed-{seed}"
    tests: list[Path] = []
    trainings: list[Path] = []
    for context in ("internal_state", "full"):
        start = mem1.load_config(
            "configs/learn.toml",
            overrides=[
                f'context.policies=["{context}"]',
                f"engine.model=data/ledger/{context}",
                f"train.seed={seed}",
                f"sampling.seed={seed}",
            ],
        )
        console.rule(f"{context}: as it came")
        tests.append(test(start, place / f"{context}-before"))
        console.rule(f"{context}: learning, on two questions at a time")
        trainings.append(place / f"{context}-training")
        trained = train(start, trainings[-1])
        console.rule(f"{context}: trained")
        tests.append(test(trained, place / f"{context}-after"))
    show_horizon(Console(), report_horizon(tests, out=place, command=("python", *sys.argv)))
    print(f"report: {place / 'horizon.md'}")
    print(f"report: {report_html([*tests, *trainings], out=place / 'report.html')}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]), *map(Path, sys.argv[2:3]))
