"""The seam between the agent loop and whatever samples tokens.

Request(prompt_ids, messages, …) -> Engine.complete -> Completion
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from mem1.errors import ConfigError
from mem1.types import Completion, Message, Sampling


@dataclass(frozen=True, slots=True, kw_only=True)
class Carry:
    """What an episode that computes each token once goes on from (`mem1.carry`).

    Its tokens are counted in the order in which they're computed; the count is their position.

    >>> Carry(episode="e", kept=(0, 1, 5, 6), start=7).num_kept  # 2, 3, 4 are evicted
    4
    """

    episode: Hashable
    """Equal to that of no other episode under way."""
    kept: tuple[int, ...]
    """Places of the tokens that stay, ascending: the first ones of the prompt."""
    start: int
    """Place of the first token behind them, all of which are new; 0 for the first request."""

    @property
    def num_kept(self) -> int:
        return len(self.kept)


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
    carry: Carry | None = None
    """None: the prompt is encoded as it stands, whatever came before."""

    @property
    def new_ids(self) -> tuple[int, ...]:
        """The part of the prompt that no earlier request of the episode has computed."""
        return self.prompt_ids[self.carry.num_kept :] if self.carry else self.prompt_ids

    @property
    def end(self) -> int:
        """One more than the last position that can be reached: what a model's window must hold."""
        start = self.carry.start if self.carry else 0
        return start + len(self.new_ids) + self.max_tokens


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


@runtime_checkable
class CarryingEngine(Engine, Protocol):
    """An `Engine` that serves requests with `carry`: it holds the keys and values of an episode
    from one request to the next, and evicts those that the next one doesn't keep."""

    @property
    def can_carry(self) -> bool:
        """False for a model whose keys and values can't be evicted one by one."""
        ...

    def release(self, episode: Hashable) -> None:
        """The episode is over: drop what it holds. Harmless if that's nothing."""
        ...


def carrying(engine: Engine) -> CarryingEngine:
    """The engine, if it can carry. Raises: ConfigError if it can't."""
    if isinstance(engine, CarryingEngine) and engine.can_carry:
        return engine
    raise cannot_carry(engine)


def cannot_carry(engine: Engine) -> ConfigError:
    return ConfigError(
        f"mode = 'carry': {type(engine).__name__} can't evict keys and values between turns: use "
        "engine.kind = 'local' with a model whose layers all attend to all tokens (Llama, Qwen2, "
        "Qwen3), or mode = 'reencode'"
    )
