"""ONE SERVER, checked: it has the model, reads text as we do, tells tokens and log-probabilities.

    url -> connect -> Replica -> complete, load

A server that isn't what the config says is refused before the first episode.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mem1.engines.base import Codec, Request
from mem1.engines.openai import OpenAIEngine, StatusError, probe
from mem1.engines.vllm.config import VLLMConfig
from mem1.engines.vllm.server import Server
from mem1.engines.vllm.wire import Api, SGLangApi, VLLMApi
from mem1.errors import ConfigError, EngineError, Mem1Error, ModelError
from mem1.types import Completion

PROBE = (
    "<think>In 1969 the naïve café owner wrote:\n\n\t“x != y;” 北京 🙂</think>\n"
    "<search>Who was the first person to walk on the Moon?</search>"
)
"""A text on which other tokenizers, and other weights, show."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Replica:
    """One server."""

    url: str
    client: OpenAIEngine
    api: Api
    server: Server | None = None
    """None: somebody else's."""

    async def complete(self, request: Request) -> Completion:
        sampling, cut = request.sampling, self.client.scaled_logprobs and self.api.truncates
        if cut and sampling.temperature and sampling.top_p < 1:
            raise ConfigError(
                f"{self.url}: its log-probabilities are of what sampling.top_p = "
                f"{sampling.top_p} leaves: set it to 1; or set sampling.temperature to 1 and start "
                "the server without --logprobs-mode"
            )
        try:
            return await self.client.complete(request)
        except EngineError as error:
            if self.server is None or self.server.running:
                raise
            raise EngineError(f"{self.server.name} ended; {self.server.last_words()}") from error

    async def answers(self) -> bool:
        """Whether the server is there and can sample."""
        if self.server is not None and not self.server.running:
            return False
        try:
            await self.client.ask("/health")
        except StatusError as error:
            return error.status < 500
        except EngineError:
            return False
        return True

    async def load(self, folder: Path) -> None:
        """As `Api.load`; a server of our own tells the end of its log, too."""
        try:
            await self.api.load(folder)
        except Mem1Error as error:
            if self.server is None:
                raise
            raise ModelError(f"{error}; {self.server.last_words()}") from error


async def connect(
    url: str, *, config: VLLMConfig, codec: Codec, eos_ids: Sequence[int], server: Server | None
) -> Replica:
    """A server that is what the config says. Raises: ModelError if it isn't."""
    extensions = {"stop_token_ids": list(eos_ids)} if eos_ids else {}
    try:
        client = await OpenAIEngine.connect(config.client(url), codec=codec, extensions=extensions)
    except ModelError as error:
        raise ModelError(f"{error}. Name one of them with engine.served_name") from error
    try:
        # An SGLang server is known by the list of models; it has told so in `connect`.
        make: Any = SGLangApi if client.scaled_logprobs else VLLMApi
        api: Api = make(client, url=url, model=config.name)
        await _check_tokenizer(client, url=url, name=config.name, codec=codec, eos_ids=eos_ids)
        if not (await client.complete(probe(codec))).exact:
            raise ModelError(
                f"{url}: it tells no token ids or log-probabilities, so it's no vLLM of 0.10.2 or "
                "newer: update it, or set engine.kind = 'openai'"
            )
        client.scaled_logprobs = await api.scaled()
    except BaseException:
        await client.close()
        raise
    return Replica(url=url, client=client, api=api, server=server)


async def _check_tokenizer(
    client: OpenAIEngine, *, url: str, name: str, codec: Codec, eos_ids: Sequence[int]
) -> None:
    """Raises: ModelError if the server's tokens of these ids, control tokens too, aren't ours."""
    ids = [*codec.encode(PROBE), *eos_ids]
    body = {"model": name, "tokens": ids, "skip_special_tokens": False}
    told = await client.ask("/detokenize", body=body)
    match told:
        case {"prompt": str(theirs)} | {"text": str(theirs)}:
            pass
        case _:
            raise EngineError(f"{url}/detokenize: no text in {str(told)[:300]!r}")
    ours = codec.decode(ids)
    # Servers clean blanks up, before punctuation say.
    if "".join(ours.split()) != "".join(theirs.split()):
        raise ModelError(
            f"{url}: its tokenizer isn't that of engine.model: token ids that stand for {ours!r} "
            f"are {theirs!r} there: serve the folder that engine.model names"
        )


def check_temperature(replica: Replica, temperature: float) -> None:
    if temperature != 1 and not replica.client.scaled_logprobs:
        raise ConfigError(
            f"sampling.temperature = {temperature}, but {replica.url} tells log-probabilities at "
            "1: start it with  --logprobs-mode processed_logprobs  or set the temperature to 1"
        )
