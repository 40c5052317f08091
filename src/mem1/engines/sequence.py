"""ONE REQUEST ON ITS WAY through the local engine, from the first token fed to the last sampled.

Request -> TokenSequence -> new_ids, a forward pass, append, check_end; again -> Completion
"""

import asyncio
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mem1.engines.base import Codec, Request
from mem1.engines.lookup import Lookup
from mem1.types import Completion

if TYPE_CHECKING:
    from mem1.engines.kv import Held


@dataclass(slots=True, kw_only=True, eq=False)
class TokenSequence:
    """A prompt and what has been sampled behind it so far."""

    request: Request
    future: "asyncio.Future[Completion]"
    rng: random.Random
    held: "Held | None" = None
    """What its episode has left it; once it's over, what it leaves. Only if that's carried."""
    token_ids: list[int] = field(default_factory=list[int])
    logprobs: list[float] = field(default_factory=list[float])
    text: str | None = None
    """Set when it's over."""
    finish_reason: str = "length"
    new_ids: tuple[int, ...] = ()
    """What the next forward pass takes of it."""
    guess: tuple[int, ...] = ()
    """The last of `new_ids`: what may be sampled in this pass, besides the next token."""
    lookup: Lookup | None = None
    """Where guesses come from; None: nothing is guessed."""
    cache: Any = None
    """Keys and values of its own, for models that can't be batched."""
    _uniforms: list[float] = field(default_factory=list[float])
    _num_plain: int | None = None
    """Tokens of the prompt before the first gap; None: there's no gap."""

    def __post_init__(self) -> None:
        carry = self.request.carry
        if carry and carry.num_kept < carry.start:
            gaps = (n for n, place in enumerate(carry.kept) if place > n)
            self._num_plain = next(gaps, carry.num_kept)

    @property
    def plain_ids(self) -> tuple[int, ...]:
        """Ids up to where something was evicted: keys and values of these are the same in every
        sequence that begins so."""
        if self._num_plain is None:
            return (*self.request.prompt_ids, *self.token_ids)
        return self.request.prompt_ids[: self._num_plain]

    @property
    def begins(self) -> bool:
        """Whether nothing of its episode came before, and nothing is sampled yet."""
        carry = self.request.carry
        return not self.token_ids and (carry is None or carry.start == 0)

    @property
    def places(self) -> tuple[int, ...]:
        """Where its tokens stand in its episode, if that's carried."""
        carry = self.request.carry
        assert carry is not None
        end = carry.start + len(self.request.new_ids) + len(self.token_ids)
        return (*carry.kept, *range(carry.start, end))

    def uniform(self, ahead: int) -> float:
        """The random number in [0, 1) of the next token, or of one `ahead` tokens behind it: it
        depends on the seed and the token's place alone."""
        while len(self._uniforms) <= len(self.token_ids) + ahead:
            self._uniforms.append(self.rng.random())
        return self._uniforms[len(self.token_ids) + ahead]

    def append(self, token_id: int, *, logprob: float) -> None:
        self.token_ids.append(token_id)
        self.logprobs.append(logprob)
        if self.lookup:
            self.lookup.append(token_id)

    def look_ahead(self) -> None:
        """Be ready for the next pass: it takes the last token, and what may come behind it."""
        room = self.request.max_tokens - len(self.token_ids) - 1
        self.guess = self.lookup.guess()[:room] if self.lookup else ()
        self.new_ids = (self.token_ids[-1], *self.guess)

    def check_end(self, *, codec: Codec, eos_ids: frozenset[int]) -> None:
        """Be over if the last token was the end."""
        ids, request = self.token_ids, self.request
        if ids[-1] in eos_ids:
            self.text, self.finish_reason = codec.decode(ids[:-1]), "stop"
        elif self._stopped(codec):
            self.text, self.finish_reason = codec.decode(ids), "stop"
        elif len(ids) >= request.max_tokens:
            self.text, self.finish_reason = codec.decode(ids), "length"

    def _stopped(self, codec: Codec) -> bool:
        """Whether the last token completes a stop string: it then holds the end of one."""
        stop, last = self.request.stop, codec.decode(self.token_ids[-1:])
        if not any(string[-1] in last or "\ufffd" in last for string in stop):
            return False
        # A token has at least one byte, so a stop string can't span more tokens than it has bytes.
        text = codec.decode(self.token_ids[-max(len(string.encode()) for string in stop) :])
        return any(string in text for string in stop)

    def completion(self) -> Completion:
        assert self.text is not None
        return Completion(
            token_ids=tuple(self.token_ids),
            logprobs=tuple(self.logprobs),
            temperature=self.request.sampling.temperature or 1.0,
            text=self.text,
            finish_reason="stop" if self.finish_reason == "stop" else "length",
        )
