"""The seam for rewards: task, answer and turns in, one number and its parts out. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from mem1.types import Task, Turn


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardOutput:
    """What an episode earned."""

    total: float
    parts: Mapping[str, float]
    """Named figures beside the total; they need not add up to it."""


@runtime_checkable
class Reward(Protocol):
    """Scores a finished episode. `answer` is None if the agent gave none."""

    def __call__(
        self, task: Task, *, answer: str | None, turns: Sequence[Turn]
    ) -> RewardOutput: ...
