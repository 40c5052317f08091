"""The seam for the world an agent acts in.

Task -> Env.start -> prompt text;  Action -> Env.step -> Observation
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from mem1.types import Action, Fault


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What the world says: foreign text, not yet capped or neutralised."""

    text: str
    done: bool = False
    """The episode ends here; the text is not shown to the model."""
    outcome: str | None = None
    """What the episode ends with, where that isn't the agent's answer: a purchase, say."""


@runtime_checkable
class Env(Protocol):
    """A world for one episode: start once, step until done, close."""

    @property
    def actions(self) -> tuple[str, ...]:
        """Names of the actions that exist; `answer` among them if the agent may answer."""
        ...

    async def start(self, *, max_turns: int, state_tokens: int) -> str:
        """The task prompt. Args: `state_tokens`, cap on the internal state, tags included."""
        ...

    async def step(self, action: Action | None, *, faults: tuple[Fault, ...]) -> Observation:
        """The world's reply to an action, or to a reply that held none (`faults` say why)."""
        ...

    async def close(self) -> None: ...
