"""A control: no memory but the last turn's action and observation."""

from dataclasses import dataclass

from mem1.context.base import Budget, Parts
from mem1.types import Context


@dataclass(frozen=True, slots=True, kw_only=True)
class LastObservation:
    """Keeps: prompt · last action · last observation · hint. What the model thinks is dropped."""

    def bound(self, budget: Budget) -> int:
        return budget.prompt + budget.action + budget.observation + budget.reply

    def update(self, context: Context, parts: Parts) -> Context:
        action = [parts.action] if parts.action else []
        return (context[0], *action, parts.observation, parts.hint)

    def __str__(self) -> str:
        return "last_observation"
