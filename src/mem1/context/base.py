"""The seam that decides what the model sees next, and how much that can ever be.

    Budget -> ContextPolicy.bound -> tokens
    Context, Parts -> ContextPolicy.update -> Context

A policy is a pure function: everything it keeps is in the Context it returns.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from mem1.chat import Renderer
from mem1.errors import BudgetError
from mem1.types import Context, Segment, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Caps, in tokens of the model's own tokenizer; all are enforced, none is a wish.

    >>> Budget(prompt=100, internal_state=50, action=10, observation=80).reply
    60
    """

    prompt: int = 4096
    """Task prompt with its chat template; a longer one ends the episode before its first turn."""
    internal_state: int = 1000
    """A kept internal state with its tags; a larger one is not taken over."""
    action: int = 64
    """A kept action with its tags; a larger one counts as none."""
    observation: int = 1000
    """An observation with its tags and the hint that follows it; a longer one is cut."""

    def __post_init__(self) -> None:
        for name in ("prompt", "internal_state", "action", "observation"):
            if getattr(self, name) < 1:
                raise BudgetError(f"budget.{name} is {getattr(self, name)}: give at least 1 token")

    @property
    def reply(self) -> int:
        """Most tokens sampled in one turn."""
        return self.internal_state + self.action


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a turn adds: the reply, whole and taken apart, and the world's answer to it."""

    reply: Segment
    """Everything that was sampled."""
    internal_state: Segment | None
    """None if the reply has none that may be kept."""
    action: Segment | None
    """None if the reply has no valid action."""
    observation: Segment
    hint: Segment


@runtime_checkable
class ContextPolicy(Protocol):
    """Decides what the model sees next. `str(policy)` names it with its settings."""

    def bound(self, budget: Budget) -> int | None:
        """Largest context + reply over any number of turns, in tokens; None if there is none."""
        ...

    def update(self, context: Context, parts: Parts) -> Context:
        """The next context. The first one holds only the prompt; segment 0 always is the prompt."""
        ...


@runtime_checkable
class TaskPolicy(Protocol):
    """What a policy may have besides, if it needs to know the task: a control does."""

    def of(self, task: Task, *, renderer: Renderer, budget: Budget) -> ContextPolicy:
        """The policy of one task, with the same name and bound.

        Raises: BudgetError if this task breaks the bound.
        """
        ...


def check_window(policy: ContextPolicy, *, budget: Budget, window: int | None) -> int | None:
    """The policy's bound, or BudgetError if it does not fit the model's window."""
    bound = policy.bound(budget)
    least = budget.prompt + budget.reply if bound is None else bound
    if window is not None and least > window:
        raise BudgetError(
            f"{policy} needs up to {least} tokens with {budget}, but the model's window is "
            f"{window}: lower the caps or take a model with a larger window"
        )
    return bound
