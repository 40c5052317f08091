"""A control: observations are withheld, so that what is right was known or guessed."""

from dataclasses import dataclass

from mem1.context.base import Budget, Parts
from mem1.context.internal_state import InternalState
from mem1.types import Context, SegmentKind


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedBook:
    """Keeps what `internal_state` keeps but the observation: prompt · state · action · hint."""

    def bound(self, budget: Budget) -> int:
        # The cap on observations holds for the hint alone: they share it.
        return InternalState().bound(budget)

    def update(self, context: Context, parts: Parts) -> Context:
        kept = InternalState().update(context, parts)
        return tuple(segment for segment in kept if segment.kind is not SegmentKind.OBSERVATION)

    def __str__(self) -> str:
        return "closed_book"
