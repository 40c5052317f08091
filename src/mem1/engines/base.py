"""The seam between the agent loop and whatever samples tokens.

Request(prompt_ids, messages, …) -> Engine.complete -> Completion
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from mem1.types import Completion, Message, Sampling


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One model call.

    An engine that takes token ids uses `prompt_ids` and ignores `messages`; a chat-only server
    gets `messages`, which say the same in text.
    """

    prompt_ids: tuple[int, ...]
    """Shape (num_prompt_tokens,)."""
    messages: tuple[Message, ...]
    max_tokens: int
    """Most tokens to sample; the engine must not exceed it."""
    stop: tuple[str, ...]
    """Sampling ends with the token that completes the first of these; that token is kept."""
    sampling: Sampling
    """Its seed, if any, is of this very call."""


class Codec(Protocol):
    """Text to ids and back: what engines need of a Renderer (`mem1.chat`)."""

    def encode(self, text: str) -> tuple[int, ...]: ...

    def decode(self, token_ids: Sequence[int]) -> str: ...


@runtime_checkable
class Engine(Protocol):
    """Samples replies; safe to call concurrently from one event loop.

    Raises `EngineError` if it can't sample, after its own retries. An error text is never returned
    as a completion.
    """

    @property
    def window(self) -> int | None:
        """Most tokens of prompt + reply together; None if the engine does not know."""
        ...

    async def complete(self, request: Request) -> Completion: ...

    async def close(self) -> None:
        """Release what it holds; calling twice is harmless."""
        ...
