"""Made-up trajectories as verl's rows, and what our own trainer says of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from ledger_runs import groups, train_config

from mem1.adapters.verl.credit import Credit, Row
from mem1.adapters.verl.layout import RowKey
from mem1.packing import sampled_tokens
from mem1.train.config import GROUPED, LossConfig, TrainConfig
from mem1.train.experience import estimate, split
from mem1.types import Trajectory

Told = dict[str, np.ndarray]
"""Of every sampled token: log-probabilities before, of the reference, and values; shape (T,)."""


def tasks_of(
    algorithm: Any, *, weigh_by: Any = "trajectory", kl: float = 0.0
) -> tuple[list[Trajectory], TrainConfig]:
    """Four tasks with three rollouts each, two tasks in an optimizer step."""
    kl_in: Any = "loss" if algorithm in GROUPED else "reward"
    loss = LossConfig(weigh_by=weigh_by, kl=kl, kl_in=kl_in, entropy=0.01)
    config = train_config(algorithm, mini_batch_size=2, group_size=3, loss=loss)
    return groups(4, size=3, max_turns=5), config


def scored(trajectories: Sequence[Trajectory], *, seed: int = 0) -> Told:
    """Made-up numbers of every sampled token."""
    tokens = sampled_tokens(trajectories)
    noise = np.random.default_rng(seed).normal(0, 0.1, (3, tokens.num_tokens))
    old = tokens.sampled_logprobs + noise[0]
    return {"old": old, "ref": old + noise[1], "values": noise[2]}


def rows_of(trajectories: Sequence[Trajectory], *, told: Told, config: TrainConfig) -> list[Row]:
    """One row for each turn; whole tasks in each step, in their order."""
    tasks = list(dict.fromkeys(trajectory.task.id for trajectory in trajectories))
    per_step = config.mini_batch_size or len(tasks)
    turns = [(t, n, turn) for t in trajectories for n, turn in enumerate(t.turns)]
    ends = np.cumsum([turn.completion.num_tokens for _, _, turn in turns])[:-1]
    pieces = {name: np.split(values, ends) for name, values in told.items()}
    return [
        Row(
            key=RowKey(group=trajectory.task.id, session=trajectory.sample, turn=turn),
            step=tasks.index(trajectory.task.id) // per_step,
            reward=trajectory.reward,
            old_logprobs=pieces["old"][number],
            ref_logprobs=pieces["ref"][number] if config.loss.kl else None,
            values=pieces["values"][number] if config.critic else None,
        )
        for number, (trajectory, turn, _) in enumerate(turns)
    ]


def own_numbers(
    trajectories: Sequence[Trajectory], *, told: Told, config: TrainConfig
) -> dict[str, np.ndarray]:
    """What our trainer learns from: advantages, weights and, with a critic, returns."""
    tokens = sampled_tokens(trajectories)
    advantages, returns = estimate(
        np.array([trajectory.reward for trajectory in trajectories]),
        trajectory_T=tokens.trajectory,
        group_B=np.array([trajectory.task.id for trajectory in trajectories]),
        scored=(told["old"], told["ref"] if config.loss.kl else None, told["values"]),
        config=config,
    )
    steps = split(trajectories, tokens=tokens, config=config)
    found = {"advantages": advantages, "weights": sum(step.weights_T for step in steps)}
    return found if returns is None else found | {"returns": returns}


def told_of(rows: Sequence[Credit], name: str) -> np.ndarray:
    return np.concatenate([getattr(row, name) for row in rows])
