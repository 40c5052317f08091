"""Sample from vLLM servers, started here or running already, and give them the trainer's weights.

    VLLMConfig -> VLLMEngine.open -> replicas, started and checked
    Request  -> the replica that has most of the prompt in its cache -> Completion
    forget() -> before the next request: Weights.write -> a folder -> each replica loads it in place

An SGLang server that runs already is taken, too. What tells servers apart is in `wire`.
"""

import asyncio
import logging
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Protocol, Self

from mem1.engines.base import Codec, Request, cannot_carry
from mem1.engines.vllm.config import VLLMConfig
from mem1.engines.vllm.replica import PROBE, Replica, check_temperature, connect
from mem1.engines.vllm.routes import Routes
from mem1.engines.vllm.server import Server, launch_all
from mem1.errors import ConfigError, EngineError, Mem1Error, ModelError, StoreError
from mem1.types import Completion

_log = logging.getLogger(__name__)


_GROWTH, _NOISE = 5.0, 1e-4
"""By how much the gap to a server may grow without a word, and what it may be anyway, in nats."""


class Weights(Protocol):
    """What is trained, for the servers that sample from it."""

    def write(self, folder: Path) -> None:
        """Write the weights as they are as a Hugging Face folder. Raises: OSError."""
        ...

    def logprobs(self, token_ids: Sequence[int]) -> Sequence[float]:
        """Log-probability of all tokens but the first, each given those before it."""
        ...


class VLLMEngine:
    """An `Engine` over replicas, which sample from the trainer's weights if there's a trainer."""

    def __init__(
        self,
        replicas: Sequence[Replica],
        *,
        config: VLLMConfig,
        codec: Codec,
        folder: Path,
        weights: Weights | None = None,
    ) -> None:
        """Args: `folder`, for weights on their way; it's removed in the end."""
        self._replicas = tuple(replicas)
        self._config, self._codec, self._folder = config, codec, folder
        self._weights, self._pushed = weights, 0
        self._stale = weights is not None
        self._gaps: dict[str, float] = {}
        self._refusal: Mem1Error | None = None
        self._pushing = asyncio.Lock()
        self._routes = Routes(len(self._replicas))

    @classmethod
    async def open(
        cls,
        config: VLLMConfig,
        *,
        codec: Codec,
        eos_ids: Sequence[int] = (),
        weights: Weights | None = None,
        temperature: float = 1.0,
    ) -> Self:
        """Start the servers, or find those that run, and check that they are what the config says.

        Args: `eos_ids`, ids that end a reply besides those of the model's generation config;
        `temperature`, of what `weights` learn from.
        Raises: ModelError for a server that ends, or has another model, tokenizer or API;
        EngineError for one that doesn't answer; ConfigError for what can't be started.
        """
        folder = _work_folder(config)
        servers = launch_all(config, folder=folder, scaled=temperature != 1)
        replicas: list[Replica] = []
        try:
            await asyncio.gather(*(s.ready(timeout_s=config.start_timeout_s) for s in servers))
            urls = [server.url for server in servers] or [_root(url) for url in config.urls]
            for url, server in zip(urls, servers or [None] * len(urls), strict=True):
                replicas.append(
                    await connect(url, config=config, codec=codec, eos_ids=eos_ids, server=server)
                )
                if weights is not None:
                    await replicas[-1].api.check_loads()
                    check_temperature(replicas[-1], temperature)
        except BaseException:
            await _end(replicas, servers)
            if not servers:
                shutil.rmtree(folder, ignore_errors=True)
            raise
        return cls(replicas, config=config, codec=codec, folder=folder, weights=weights)

    @property
    def window(self) -> int | None:
        windows = [replica.client.window for replica in self._replicas]
        return min((window for window in windows if window is not None), default=None)

    async def complete(self, request: Request) -> Completion:
        if request.carry:
            raise cannot_carry(self)
        if not self._replicas:
            raise EngineError("vLLM: closed")
        if self._weights is not None:
            await self._catch_up(self._weights)
        while True:
            number = self._routes.enter(request.prompt_ids)
            try:
                return await self._replicas[number].complete(request)
            except EngineError as error:
                if not await self._goes_on_without(number, error):
                    raise
            finally:
                self._routes.leave(number)

    def forget(self) -> None:
        """The weights have changed: the next request is sampled from the new ones.

        Raises: EngineError while requests are under way.
        """
        if self._routes.in_flight:
            raise EngineError(
                f"vLLM: can't take new weights, requests under way: {self._routes.in_flight}"
            )
        self._stale = self._weights is not None
        self._routes.forget()

    async def close(self) -> None:
        replicas, self._replicas = self._replicas, ()
        servers = [replica.server for replica in replicas if replica.server]
        refused = bool(servers) and self._refusal is not None
        telling = refused or any(not server.running for server in servers)
        await _end(replicas, servers)
        if replicas and not telling:
            # Else there are logs that say what was wrong.
            shutil.rmtree(self._folder, ignore_errors=True)

    async def _goes_on_without(self, number: int, error: object) -> bool:
        """Drop a replica that doesn't answer any more, if there's another one."""
        replica, last = self._replicas[number], {number}
        if self._routes.left == last or await replica.answers() or self._routes.left == last:
            return False
        if number in self._routes.left:
            self._routes.drop(number)
            _log.warning(
                "%s is lost: %s; the run goes on with the other %d, start it again to have all",
                *(replica.url, error, len(self._routes.left)),
            )
        return True

    async def _alive(self) -> list[Replica]:
        """Those that take weights; lost ones are dropped."""
        for number in sorted(self._routes.left):
            await self._goes_on_without(number, "it doesn't answer")
        return [self._replicas[number] for number in sorted(self._routes.left)]

    async def _catch_up(self, weights: Weights) -> None:
        """Give the servers the weights as they are, if they've changed since."""
        async with self._pushing:
            if self._refusal is not None:
                raise self._refusal
            if not self._stale:
                return
            try:
                await self._push(weights)
            except Mem1Error as error:
                # Not once for each episode that asks.
                self._refusal = error
                raise
            self._stale = False

    async def _push(self, weights: Weights) -> None:
        self._pushed += 1
        # A new name each time: nothing that remembers files by their names can mistake one.
        folder = self._folder / f"weights-{self._pushed:06d}"
        replicas = await self._alive()
        try:
            await asyncio.to_thread(weights.write, folder)
            await asyncio.gather(*(replica.load(folder) for replica in replicas))
        except OSError as error:
            raise StoreError(
                f"{folder}: weights can't be written: {error}: make room, or name another "
                "engine.work_dir"
            ) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        await self._check_weights(weights, replicas)

    async def _check_weights(self, weights: Weights, replicas: Sequence[Replica]) -> None:
        """Raises: ModelError for a server that has other weights than the trainer."""
        ids = self._codec.encode(PROBE)
        ours = await asyncio.to_thread(weights.logprobs, ids)
        for replica in replicas:
            theirs = await replica.api.logprobs(ids)
            gap = fmean(abs(a - b) for a, b in zip(ours, theirs, strict=True))
            # Not a number is no small number.
            if not gap <= self._config.weights_gap:
                raise ModelError(
                    f"{replica.url}: its log-probabilities of a probe are {gap:.3g} nats a token "
                    f"away from the trainer's, more than engine.weights_gap = "
                    f"{self._config.weights_gap}: it has other weights. Is its model "
                    f"{self._config.model}, not quantized, without adapters?"
                )
            first = self._gaps.setdefault(replica.url, gap)
            if gap > max(first * _GROWTH, _NOISE):
                _log.warning(
                    "%s: its log-probabilities were %.2g nats a token away from the trainer's, now "
                    "it's %.2g: part of the weights may not reach it",
                    *(replica.url, first, gap),
                )


def _work_folder(config: VLLMConfig) -> Path:
    try:
        return Path(tempfile.mkdtemp(prefix="mem1-vllm-", dir=config.work_dir)).absolute()
    except OSError as error:
        raise ConfigError(
            f"engine.work_dir = {config.work_dir!r}: {error}: name a folder that can be written"
        ) from error


async def _end(replicas: Sequence[Replica], servers: Sequence[Server]) -> None:
    for replica in replicas:
        await replica.client.close()
    await asyncio.gather(*(asyncio.to_thread(server.stop) for server in servers))


def _root(url: str) -> str:
    return url.rstrip("/").removesuffix("/v1")
