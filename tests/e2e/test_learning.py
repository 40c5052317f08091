"""The demo in short: rewards repair what imitation left wrong, and only on exact rows.

Each variant trains the shipped start for a few steps. It has learned if it earns what it did not
before, and if what was trained is what was run.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("transformers")

from mem1.config import load_config
from mem1.train.curriculum import Level
from mem1.train.logbook import METRICS_FILE, read_metrics
from mem1.train.sources import Source
from mem1.train.trainer import train
from mem1.training import TrainWatcher, open_run
from mem1.types import SegmentKind, Trajectory, Turn

ROOT = Path(__file__).parents[2]
STEPS = 6


def shuffled(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    order = np.random.default_rng(0).permutation(len(trajectories))
    rewards = [trajectories[index].reward for index in order]
    return [replace(t, reward=r) for t, r in zip(trajectories, rewards, strict=True)]


def hidden_state(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    def blind(turn: Turn) -> Turn:
        seen = [s for s in turn.context if s.kind is not SegmentKind.INTERNAL_STATE]
        return replace(turn, context=tuple(seen))

    return [replace(t, turns=tuple(map(blind, t.turns))) for t in trajectories]


def evicted_in_view(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    """The last turn's context holds all that earlier ones showed."""

    def whole(trajectory: Trajectory) -> Trajectory:
        *turns, last = trajectory.turns
        shown = dict.fromkeys(segment for turn in trajectory.turns for segment in turn.context)
        return replace(trajectory, turns=(*turns, replace(last, context=tuple(shown))))

    return list(map(whole, trajectories))


@dataclass(frozen=True)
class Rewritten:
    """A source whose batches are rewritten before they are learned from."""

    source: Source
    rewrite: Callable[[Sequence[Trajectory]], list[Trajectory]]

    def batch(self, step: int, *, level: Level) -> list[Trajectory]:
        return self.rewrite(self.source.batch(step, level=level))

    def validate(self, step: int, *, level: Level) -> list[Trajectory]:
        return self.source.validate(step, level=level)

    def forget_after(self, step: int) -> None:
        self.source.forget_after(step)


def metrics_of(folder: Path, rewrite, *, steps: int = STEPS) -> list[dict[str, float]]:
    settings = {"steps": steps, "batch_size": 64, "optimizer.lr": 5e-4, "save_every": steps}
    config = load_config(
        ROOT / "configs/learn.toml",
        overrides=[
            f"engine.model={ROOT / 'data/ledger/internal_state'}",
            *[f"train.{name}={value}" for name, value in settings.items()],
        ],
    )
    with open_run(config, folder=folder, watcher=TrainWatcher()) as run:
        train(replace(run, source=Rewritten(run.source, rewrite)))
    return list(read_metrics(folder / METRICS_FILE))


def earns(metrics: list[dict[str, float]]) -> bool:
    """Whether the mean reward of two objectives rose from below 1.2 to above 1.6."""
    return metrics[0]["reward"] < 1.2 and metrics[-1]["reward"] > 1.6


def exact(metrics: list[dict[str, float]]) -> bool:
    """Whether the trainer's log-probabilities were the sampler's, to 1e-3 nats."""
    return max(step["logprob_gap_max"] for step in metrics) < 1e-3


def test_a_policy_learns_from_rewards_what_it_ran(tmp_path):
    metrics = metrics_of(tmp_path, list)
    assert earns(metrics)
    assert exact(metrics)


def test_it_does_not_learn_from_rewards_of_other_episodes(tmp_path):
    metrics = metrics_of(tmp_path, shuffled)
    assert not earns(metrics)
    assert exact(metrics)


@pytest.mark.parametrize("rewrite", [hidden_state, evicted_in_view])
def test_training_on_other_contexts_than_were_run_is_noticed(tmp_path, rewrite):
    assert not exact(metrics_of(tmp_path, rewrite, steps=1))
