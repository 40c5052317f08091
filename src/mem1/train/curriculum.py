"""FROM EASY TO HARD: which tasks a step works on, and how large an internal state may be.

    [train.curriculum], [tasks], [budget] -> levels_of -> (Level, Level, ...)
    Place, score of a step -> moved -> Place

A run is at one level at a time and never goes back. One without a curriculum has one level.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from mem1.errors import ConfigError
from mem1.train.config import CurriculumConfig
from mem1.types import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """How hard a run's episodes are."""

    num_objectives: int | None = None
    """None: tasks of any number."""
    internal_state: int | None = None
    """Cap on the internal state, in tokens; None: the budget's."""

    def pick(self, tasks: Sequence[Task]) -> Sequence[Task]:
        """The tasks of this level."""
        if self.num_objectives is None:
            return tasks
        return [task for task in tasks if len(task.objectives) == self.num_objectives]


def levels_of(
    config: CurriculumConfig | None, *, num_objectives: Sequence[int], internal_state: int
) -> tuple[Level, ...]:
    """The levels of a run, the easiest first.

    Args: `num_objectives`, of `[tasks]`; `internal_state`, the budget's cap, in tokens.
    Raises: ConfigError for fewer than two levels, for numbers and caps that don't go together, and
    for a cap above the budget's.

    >>> [(level.num_objectives, level.internal_state) for level in levels_of(
    ...     CurriculumConfig(threshold=0.8), num_objectives=[2, 4], internal_state=40)]
    [(2, None), (4, None)]
    """
    if config is None:
        return (Level(),)
    over = [cap for cap in config.internal_state if cap > internal_state]
    if over:
        raise ConfigError(
            f"train.curriculum.internal_state holds {over[0]}, but the bound follows from "
            f"budget.internal_state = {internal_state}: give at most that"
        )
    numbers: Sequence[int | None] = num_objectives or (None,)
    caps: Sequence[int | None] = config.internal_state or (None,)
    count = max(len(numbers), len(caps))
    if count == 1:
        raise ConfigError(
            "train.curriculum has one level: give several tasks.num_objectives, or several "
            "train.curriculum.internal_state"
        )
    if not {len(numbers), len(caps)} <= {1, count}:
        raise ConfigError(
            f"train.curriculum: {len(numbers)} tasks.num_objectives and {len(caps)} "
            "train.curriculum.internal_state: give equally many, or one of either"
        )
    pairs = zip(_stretched(numbers, count), _stretched(caps, count), strict=True)
    return tuple(Level(num_objectives=number, internal_state=cap) for number, cap in pairs)


def _stretched(values: Sequence[int | None], count: int) -> list[int | None]:
    return list(values) if len(values) == count else list(values) * count


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where in its curriculum a run is."""

    level: int = 0
    """Counted from 0."""
    scores: tuple[float, ...] = ()
    """Of the level's last steps, at most `window`: mean exact match per objective."""

    @classmethod
    def read(cls, info: Any) -> "Place":
        """A place as a checkpoint holds it."""
        return cls(level=info["level"], scores=tuple(info["scores"]))


def moved(place: Place, *, score: float, config: CurriculumConfig | None, num_levels: int) -> Place:
    """Where a run is after a step that earned a score: at the next level if a whole window reached
    the threshold on average, with no scores yet; the last level has no next.

    >>> moved(Place(scores=(0.7,)), score=0.9, num_levels=2,
    ...       config=CurriculumConfig(threshold=0.8, window=2))
    Place(level=1, scores=())
    """
    if config is None:
        return place
    scores = (*place.scores, score)[-config.window :]
    reached = len(scores) == config.window and fmean(scores) >= config.threshold
    if reached and place.level + 1 < num_levels:
        return Place(level=place.level + 1)
    return Place(level=place.level, scores=scores)
