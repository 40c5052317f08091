"""Full history: every turn stays. What agents do today, and the baseline."""

from dataclasses import dataclass

from mem1.context.base import Budget, Parts
from mem1.types import Context


@dataclass(frozen=True, slots=True, kw_only=True)
class Full:
    """Keeps everything; has no bound, and the episode stops when the window is full."""

    def bound(self, budget: Budget) -> None:
        return None

    def update(self, context: Context, parts: Parts) -> Context:
        return (*context, parts.reply, parts.observation, parts.hint)

    def __str__(self) -> str:
        return "full"
