"""ROWS -> WHAT EACH OF THEIR TOKENS IS WORTH, by the functions of our own trainer.

rows, one for each context -> [trajectory by trajectory] -> mem1.train.advantages
                           -> Credit of each row: advantages, returns, weights
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mem1.adapters.verl.layout import RowKey
from mem1.train.advantages import token_weights
from mem1.train.config import TrainConfig
from mem1.train.experience import estimate


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Row:
    """The sampled tokens of one context, with what verl has computed of each."""

    key: RowKey
    step: int
    """The optimizer step that learns from it."""
    reward: float
    """Of its whole trajectory."""
    old_logprobs: np.ndarray
    """Under the weights before the update, shape (n,)."""
    ref_logprobs: np.ndarray | None
    """Under the model that training began with; None where they aren't used."""
    values: np.ndarray | None
    """None without a critic."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Credit:
    """Of a row's tokens; float64, each of shape (n,)."""

    advantages: np.ndarray
    returns: np.ndarray | None
    """What the critic should have predicted; None without one."""
    weights: np.ndarray
    """How much each token counts in its optimizer step; their sum over the step is 1."""


def credit(rows: Sequence[Row], *, config: TrainConfig) -> list[Credit]:
    """Say what each token is worth, row by row in the order given.

    Raises: ConfigError naming a group of one, if the algorithm compares rollouts.
    """
    order = sorted(range(len(rows)), key=lambda number: rows[number].key.place)
    told = [rows[number] for number in order]
    sizes = np.array([len(row.old_logprobs) for row in told])
    names = list(dict.fromkeys((row.key.group, row.key.session) for row in told))
    numbers = {name: number for number, name in enumerate(names)}
    owners = np.array([numbers[row.key.group, row.key.session] for row in told])
    trajectory_T = np.repeat(owners, sizes)
    rewards_B = np.zeros(len(names))
    rewards_B[owners] = [row.reward for row in told]
    group_B = np.array([group for group, _ in names])
    advantages_T, returns_T = estimate(
        rewards_B,
        trajectory_T=trajectory_T,
        group_B=group_B,
        scored=(
            np.concatenate([row.old_logprobs for row in told]),
            _joined([row.ref_logprobs for row in told]),
            _joined([row.values for row in told]),
        ),
        config=config,
    )
    weights_T = np.zeros(len(trajectory_T))
    step_T = np.repeat([row.step for row in told], sizes)
    for step in np.unique(step_T):
        inside = step_T == step
        weights_T[inside] = token_weights(
            trajectory_T[inside], group_B=group_B, by=config.loss.weigh_by
        )
    ends = np.cumsum(sizes)
    found: dict[int, Credit] = {}
    for number, begin, end in zip(order, ends - sizes, ends, strict=True):
        found[number] = Credit(
            advantages=advantages_T[begin:end],
            returns=None if returns_T is None else returns_T[begin:end],
            weights=weights_T[begin:end],
        )
    return [found[number] for number in range(len(rows))]


def _joined(arrays: Sequence[np.ndarray | None]) -> np.ndarray | None:
    told = [array for array in arrays if array is not None]
    return np.concatenate(told) if told else None
