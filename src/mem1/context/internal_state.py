"""MEM1: the model rewrites its memory every turn and everything older is dropped."""

from dataclasses import dataclass

from mem1.context.base import Budget, Parts
from mem1.types import Context, SegmentKind


@dataclass(frozen=True, slots=True, kw_only=True)
class InternalState:
    """Keeps: prompt · last internal state · last action · last observation · hint.

    A reply without a usable state leaves the state as it was. Source: arXiv 2506.15841, section 3.
    """

    def bound(self, budget: Budget) -> int:
        kept = budget.internal_state + budget.action + budget.observation
        return budget.prompt + kept + budget.reply

    def update(self, context: Context, parts: Parts) -> Context:
        kept = [s for s in context if s.kind is SegmentKind.INTERNAL_STATE]
        state = [parts.internal_state] if parts.internal_state else kept
        action = [parts.action] if parts.action else []
        return (context[0], *state, *action, parts.observation, parts.hint)

    def __str__(self) -> str:
        return "internal_state"
