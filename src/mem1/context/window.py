"""Sliding window: the last k turns stay, whole."""

from dataclasses import dataclass

from mem1.context.base import Budget, Parts
from mem1.errors import ConfigError
from mem1.types import Context


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Keeps the prompt and the last `k` turns (reply, observation, hint)."""

    k: int = 1

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ConfigError(f"window k is {self.k}: keep at least 1 turn")

    def bound(self, budget: Budget) -> int:
        return budget.prompt + self.k * (budget.reply + budget.observation) + budget.reply

    def update(self, context: Context, parts: Parts) -> Context:
        oldest = parts.reply.turn - self.k + 1
        recent = [segment for segment in context[1:] if segment.turn >= oldest]
        return (context[0], *recent, parts.reply, parts.observation, parts.hint)

    def __str__(self) -> str:
        return f"window(k={self.k})"
