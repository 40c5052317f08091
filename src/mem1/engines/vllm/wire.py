"""WHAT vLLM AND SGLANG CAN DO AND OPENAI'S API CAN'T: load weights in place, score a text.

    Api.load(folder)         -> the server samples from the folder's weights, and remembers nothing
    Api.logprobs(token_ids)  -> log-probability of each token but the first
    Api.scaled()             -> whether it tells log-probabilities at the sampling temperature

Sources: vLLM 0.32.0 (its routers, and a server of it on a CPU: `benchmarks/vllm_cpu.py`), where all
but `/v1` and `/version` needs VLLM_SERVER_DEV_MODE=1; `reload_weights` takes a path since 0.16.
SGLang's `http_server.py` as of November 2026; no SGLang server was asked.
"""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from mem1.engines.openai import OpenAIEngine, StatusError
from mem1.errors import EngineError, ModelError

LEAST_VERSION = (0, 16)
"""Of vLLM, to take weights."""
_COLD = 0.1
"""A temperature at which scaled log-probabilities are ten times as far apart."""
_LIKELIEST = 5
_PLAIN = {"top_p": 1.0, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
"""Instead of the defaults that a model's generation_config.json has."""


class Api(Protocol):
    """What one server can do beyond sampling. Raises EngineError if it doesn't answer."""

    truncates: bool
    """Whether scaled log-probabilities are of what top-p leaves."""

    async def check_loads(self) -> None:
        """Raises: ModelError if it can't take weights."""
        ...

    async def load(self, folder: Path) -> None:
        """Sample from the weights of a folder from now on; what was computed is forgotten.

        Raises: ModelError if it can't.
        """
        ...

    async def logprobs(self, token_ids: Sequence[int]) -> tuple[float, ...]:
        """Log-probabilities, at temperature 1, of all tokens but the first, each given those before
        it; shape (num_tokens - 1,)."""
        ...

    async def scaled(self) -> bool:
        """Whether log-probabilities of sampled tokens are at the sampling temperature, not at 1."""
        ...


class VLLMApi:
    """An `Api` over a vLLM server."""

    truncates = True

    def __init__(self, client: OpenAIEngine, *, url: str, model: str) -> None:
        self._client, self._url, self._model = client, url, model

    async def check_loads(self) -> None:
        version = await self._version()
        if _numbers(version) < LEAST_VERSION:
            raise ModelError(
                f"{self._url}: vLLM {version} can't load weights from a folder in place: run "
                f"{'.'.join(map(str, LEAST_VERSION))} or newer"
            )
        try:
            await self._client.ask("/is_paused")
        except StatusError as error:
            if error.status != 404:
                raise
            raise ModelError(
                f"{self._url}: vLLM {version} takes no weights: start it with the environment "
                "variable VLLM_SERVER_DEV_MODE=1"
            ) from error

    async def load(self, folder: Path) -> None:
        reload = {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}}
        await self._client.ask("/pause?mode=wait", body={})
        try:
            await self._client.ask("/collective_rpc", body=reload)
            told = await self._client.ask("/reset_prefix_cache", body={})
        except EngineError as error:
            # What fails in a worker may end the whole engine; if it doesn't, others may use it.
            with suppress(EngineError):
                await self._client.ask("/resume", body={})
            raise _not_loaded(self._url, folder, error) from error
        await self._client.ask("/resume", body={})
        if told == {"success": False}:
            raise ModelError(
                f"{self._url}: its prefix cache can't be reset, so it would go on from what old "
                "weights computed: nobody else may use this server"
            )

    async def logprobs(self, token_ids: Sequence[int]) -> tuple[float, ...]:
        told = await self._complete(token_ids, prompt_logprobs=0, temperature=0.0)
        match told:
            case {"choices": [{"prompt_logprobs": [None, *entries]}]}:
                found = [
                    entry.get(str(token_id), {}).get("logprob")
                    for token_id, entry in zip(token_ids[1:], entries, strict=False)
                ]
                return _floats(found, token_ids=token_ids, url=self._url)
        raise EngineError(f"{self._url}: no prompt_logprobs in {str(told)[:300]!r}")

    async def scaled(self) -> bool:
        told = {"logprobs": _LIKELIEST, "return_tokens_as_token_ids": True}
        at_1, cold = [
            _spread(await self._complete((0, 0), temperature=at, **told), url=self._url)
            for at in (1.0, _COLD)
        ]
        # Far from both 1 and 10: in bfloat16 no two answers are quite the same.
        return cold > 3 * at_1

    async def _version(self) -> str:
        match await self._client.ask("/version"):
            case {"version": str(version)}:
                return version
        return "of unknown version"

    async def _complete(self, token_ids: Sequence[int], **settings: Any) -> Any:
        body = {"model": self._model, "prompt": list(token_ids), "max_tokens": 1}
        return await self._client.ask("/v1/completions", body=body | _PLAIN | settings)


class SGLangApi:
    """An `Api` over an SGLang server."""

    truncates = False

    def __init__(self, client: OpenAIEngine, *, url: str, model: str) -> None:
        self._client, self._url, self._model = client, url, model

    async def check_loads(self) -> None:
        pass

    async def load(self, folder: Path) -> None:
        body = {"model_path": str(folder), "flush_cache": True}
        try:
            told = await self._client.ask("/update_weights_from_disk", body=body)
        except EngineError as error:
            raise _not_loaded(self._url, folder, error) from error
        if not (isinstance(told, dict) and told.get("success")):
            raise _not_loaded(self._url, folder, told)

    async def logprobs(self, token_ids: Sequence[int]) -> tuple[float, ...]:
        told = await self._client.ask(
            "/generate",
            body={
                "input_ids": list(token_ids),
                "sampling_params": {"max_new_tokens": 1},
                "return_logprob": True,
                "logprob_start_len": 0,
            },
        )
        match told:
            case {"meta_info": {"input_token_logprobs": [_, *entries]}}:
                found = [entry[0] for entry in entries]
                return _floats(found, token_ids=token_ids, url=self._url)
        raise EngineError(f"{self._url}: no input_token_logprobs in {str(told)[:300]!r}")

    async def scaled(self) -> bool:
        return True


def _not_loaded(url: str, folder: Path, reason: object) -> ModelError:
    return ModelError(
        f"{url}: can't load the weights in {folder}: can it read this folder (engine.work_dir), "
        f"and is its model of the trainer's architecture? It has to be started anew. It said: "
        f"{reason}"
    )


def _spread(told: object, *, url: str) -> float:
    """How far apart the log-probabilities of the likeliest first tokens are."""
    match told:
        case {"choices": [{"logprobs": {"top_logprobs": [{**values}, *_]}}]} if values:
            return max(values.values()) - min(values.values())
    raise EngineError(f"{url}: no top_logprobs in {str(told)[:300]!r}")


def _floats(found: Sequence[object], *, token_ids: Sequence[int], url: str) -> tuple[float, ...]:
    values = tuple(value for value in found if isinstance(value, float))
    if len(values) != len(token_ids) - 1:
        raise EngineError(f"{url}: {len(values)} log-probabilities of {len(token_ids)} tokens")
    return values


def _numbers(version: str) -> tuple[int, ...]:
    """(0, 32) of `0.32.0+cpu`; what was built from source counts as new."""
    parts = version.split(".")[:2]
    released = "dev" not in version and all(map(str.isdecimal, parts))
    return tuple(map(int, parts)) if released else LEAST_VERSION
