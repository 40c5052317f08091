"""VERL'S SERVERS -> AN ENGINE: token ids in, token ids out, whatever samples behind them.

Request -> client.generate, in verl's words -> exact ids and log-probabilities -> Completion
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mem1.chat.hf import HFRenderer
from mem1.engines import Request
from mem1.engines.base import cannot_carry
from mem1.engines.openai_wire import cut
from mem1.errors import EngineError
from mem1.types import Completion


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerEngine:
    """An `Engine` of one episode."""

    client: Any
    """verl's `LLMServerClient`, or whatever has its `generate`."""
    renderer: HFRenderer
    window: int
    """Tokens that the servers have room for, prompt and reply together."""
    settings: Mapping[str, Any]
    """verl's sampling parameters, as the agent loop was given them."""
    session: str
    """Of the episode: its requests go to one server, which has the task prompt cached."""
    versions: list[int] = field(default_factory=list[int])
    """Number of the weights that sampled each reply."""

    async def complete(self, request: Request) -> Completion:
        if request.carry:
            raise cannot_carry(self)
        told = await self.client.generate(
            request_id=self.session,
            prompt_ids=list(request.prompt_ids),
            sampling_params=self._parameters(request),
        )
        if told.stop_reason == "aborted" or not told.token_ids:
            raise EngineError(f"verl's server sampled nothing: {told.stop_reason}")
        if told.log_probs is None:
            raise EngineError("verl's server tells no log-probabilities: calculate_log_probs")
        self.versions.append(told.extra_fields.get("global_steps") or 0)
        return self._completion(request, tuple(told.token_ids), tuple(told.log_probs))

    def _parameters(self, request: Request) -> dict[str, Any]:
        """A new dict each time: the server takes out of it what it has understood."""
        sampling = request.sampling
        return dict(self.settings) | {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": request.max_tokens,
            "stop": list(request.stop),
            "include_stop_str_in_output": True,
            "skip_special_tokens": False,
            "spaces_between_special_tokens": False,
            "stop_token_ids": list(self.renderer.eos_ids),
            "logprobs": True,
        }

    def _completion(
        self, request: Request, token_ids: tuple[int, ...], logprobs: tuple[float, ...]
    ) -> Completion:
        ended = token_ids[-1] in self.renderer.eos_ids
        kept, reason = cut(
            token_ids,
            request=request,
            codec=self.renderer,
            said="stop" if ended or len(token_ids) < request.max_tokens else "length",
        )
        silent = len(kept) - (kept[-1] in self.renderer.eos_ids)
        return Completion(
            token_ids=kept,
            logprobs=logprobs[: len(kept)],
            temperature=request.sampling.temperature or 1.0,
            text=self.renderer.decode(kept[:silent]),
            finish_reason=reason,
        )

    async def close(self) -> None:
        """The servers are verl's."""
