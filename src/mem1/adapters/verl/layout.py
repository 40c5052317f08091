"""ROWS -> OPTIMIZER STEPS that hold whole groups, dealt out evenly to the ranks.

    rows of a batch -> lay_out -> Layout: the order in which verl cuts them into steps

verl cuts a batch into one run of rows for each rank, and that into equal runs, one for each step.
Six rows of groups a, a, b, b, b, b, one group a step, two ranks; - is a row of padding:

               step 0     step 1
    rank 0     a  -       b  b         the whole batch: a - b b a - b b
    rank 1     a  -       b  b

A group has as many rows as its episodes had turns, but the number of steps counts groups.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class RowKey:
    """What verl calls a row: `uid_session_index`."""

    group: str
    """Of the rollouts of one task in one step: verl's uid."""
    session: int
    """Which rollout of the task, counted from 0."""
    turn: int
    """Which of its contexts, counted from 0."""

    @classmethod
    def read(cls, key: str) -> "RowKey":
        group, session, turn = key.rsplit("_", 2)
        return cls(group=group, session=int(session), turn=int(turn))

    @property
    def place(self) -> tuple[str, int, int]:
        """For sorting: the contexts of a trajectory, the trajectories of a group side by side."""
        return self.group, self.session, self.turn


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """An order of rows."""

    order: tuple[int, ...]
    """Numbers of rows; those from `num_rows` on are padding."""
    num_rows: int
    num_steps: int
    num_ranks: int

    def steps(self) -> np.ndarray:
        """The optimizer step of each place in the order; int64, shape (len(order),)."""
        return steps_of(len(self.order), num_steps=self.num_steps, num_ranks=self.num_ranks)


def steps_of(size: int, *, num_steps: int, num_ranks: int) -> np.ndarray:
    """The optimizer step of each place of a batch that is laid out; int64, shape (size,)."""
    assert size % (num_steps * num_ranks) == 0, "every rank has as many rows in every step"
    run = size // (num_steps * num_ranks)
    return np.arange(size) // run % num_steps


def num_steps(groups: Sequence[str], *, groups_per_step: int) -> int:
    """Optimizer steps of a batch. Args: `groups`, that of each row."""
    return ceil(len(set(groups)) / groups_per_step)


def lay_out(
    groups: Sequence[str], *, lengths: Sequence[int], groups_per_step: int, num_ranks: int
) -> Layout:
    """Put whole groups into steps, as many groups in each as fit, in the order they came in.

    Args: `groups`, that of each row; `lengths`, tokens of each row, by which ranks are balanced.
    """
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    count = num_steps(groups, groups_per_step=groups_per_step)
    members: list[list[int]] = [[] for _ in range(count)]
    for row, group in enumerate(groups):
        members[numbers[group] // groups_per_step].append(row)
    room = max(ceil(len(rows) / num_ranks) for rows in members)
    padding = iter(range(len(groups), count * num_ranks * room))
    dealt = [
        _deal(sorted(rows, key=lambda row: -lengths[row]), num_ranks=num_ranks) for rows in members
    ]
    order = [
        row
        for rank in range(num_ranks)
        for hands in dealt
        for row in (*hands[rank], *(next(padding) for _ in range(room - len(hands[rank]))))
    ]
    return Layout(order=tuple(order), num_rows=len(groups), num_steps=count, num_ranks=num_ranks)


def _deal(rows: Sequence[int], *, num_ranks: int) -> list[list[int]]:
    """Deal rows out, longest first, there and back again, so that all have about as much."""
    hands: list[list[int]] = [[] for _ in range(num_ranks)]
    for number, row in enumerate(rows):
        turn, place = divmod(number, num_ranks)
        hands[num_ranks - 1 - place if turn % 2 else place].append(row)
    return hands
