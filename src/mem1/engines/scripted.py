"""An engine that says what it's told: the double for tests, examples and overhead benchmarks.

replies (a list, or a function of the Request) -> Completion with made-up log-probabilities
"""

import asyncio
from collections.abc import Callable, Iterable

from mem1.engines.base import Codec, Request, cannot_carry
from mem1.errors import EngineError
from mem1.types import Completion


class ScriptedEngine:
    """Replies from a script, in order of the calls, or from a function of the request.

    A scripted exception is raised instead of replied. Replies are cut at the first stop string
    and at `max_tokens`, as a real engine's would be. Every token gets log-probability -1.

    >>> from mem1.chat import ByteRenderer
    >>> engine = ScriptedEngine(["<answer>Paris</answer>"], codec=ByteRenderer())
    """

    def __init__(
        self,
        script: Iterable[str | Exception] | Callable[[Request], str | Exception],
        *,
        codec: Codec,
        window: int | None = None,
    ) -> None:
        self.requests: list[Request] = []
        """Every request received, in order."""
        self._window = window
        self._codec = codec
        replies = iter(()) if callable(script) else iter(script)
        self._reply = script if callable(script) else lambda _request: next(replies, None)

    @property
    def window(self) -> int | None:
        return self._window

    async def complete(self, request: Request) -> Completion:
        if request.carry:
            raise cannot_carry(self)
        self.requests.append(request)
        await asyncio.sleep(0)  # as any real engine, let the other episodes go on
        reply = self._reply(request)
        if reply is None:
            raise EngineError(f"the script has no reply for call {len(self.requests)}")
        if isinstance(reply, Exception):
            raise reply
        ends = [reply.find(stop) + len(stop) for stop in request.stop if stop in reply]
        token_ids = self._codec.encode(reply[: min(ends, default=len(reply))])
        cut = token_ids[: request.max_tokens]
        return Completion(
            token_ids=cut,
            logprobs=(-1.0,) * len(cut),
            temperature=request.sampling.temperature or 1.0,
            text=self._codec.decode(cut),
            finish_reason="stop" if len(cut) == len(token_ids) else "length",
        )

    async def close(self) -> None:
        pass
