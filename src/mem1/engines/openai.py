"""Sample from any OpenAI-compatible server: vLLM, SGLang, llama.cpp, hosted models.

Request -> POST {base_url}/completions or /chat/completions -> Completion (exact, if it tells ids)

Nothing but a well-formed completion becomes model text: whatever else a server answers (an error,
a page of HTML, half a body) is an EngineError that carries its status and the body's beginning.
"""

import asyncio
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal, Self

import httpx2
import stamina

from mem1.engines.base import Codec, Request, cannot_carry
from mem1.engines.openai_wire import FORMS, Form, read_completion
from mem1.errors import ConfigError, EngineError, ModelError
from mem1.types import Completion, Message, Sampling

_log = logging.getLogger(__name__)

_REFUSED = frozenset({400, 422})
"""A request that this server does not understand in this form."""
_BUSY = frozenset({408, 409, 425, 429})
"""Worth another try, as are all of 5xx."""
_EXCERPT_CHARS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAIConfig:
    """Which server and model to sample from, and how patiently."""

    base_url: str
    """Up to, and without, `/completions`: `http://localhost:8000/v1`."""
    model: str
    """The server's name of the model."""
    mode: Literal["completions", "chat"] = "completions"
    """`completions` sends token ids and can be exact; `chat` sends messages, for hosted models."""
    api_key_env: str = "OPENAI_API_KEY"
    """Name of the environment variable that holds the key; it may be unset."""
    window: int | None = None
    """Most tokens of prompt + reply; None: as the server says, if it says."""
    concurrency: int = 16
    """Most requests in flight."""
    timeout_s: float = 120.0
    """For one try, in seconds, and the most that a server's `Retry-After` can ask for."""
    retries: int = 4
    """Tries after the first one, if the server is busy, down or slow."""


class StatusError(EngineError):
    """A server's answer that is not a success."""

    def __init__(self, message: str, *, status: int, wait_s: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.wait_s = wait_s


class OpenAIEngine:
    """An `Engine` over HTTP. Use it within one event loop; `connect` also checks the server."""

    scaled_logprobs: bool
    """Whether the server's log-probabilities are at the sampling temperature, not at 1: set by
    `connect` for SGLang, by whoever knows more for others."""

    def __init__(
        self, config: OpenAIConfig, *, codec: Codec, extensions: Mapping[str, Any] | None = None
    ) -> None:
        """Args: `codec`, of the served model; another one makes every completion inexact;
        `extensions`, fields that go with requests for token ids, which OpenAI doesn't have.

        Raises: ConfigError if `base_url` or a number can't be used.
        """
        self._config = config
        self._codec = codec
        self._base_url = _checked_url(config)
        self._window = config.window
        self._extensions = dict(extensions or {})
        self.scaled_logprobs = False
        self._form = 0  # of FORMS[mode]: the first that the server understood
        self._key = os.environ.get(config.api_key_env, "")
        self._slots = asyncio.Semaphore(config.concurrency)
        self._client = httpx2.AsyncClient(
            # One deadline for all of a try (`_try`), not one for each read.
            timeout=None,
            limits=httpx2.Limits(max_connections=config.concurrency),
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
        )

    @classmethod
    async def connect(
        cls, config: OpenAIConfig, *, codec: Codec, extensions: Mapping[str, Any] | None = None
    ) -> Self:
        """An engine whose server is up and has the model; asks for the model's window.

        Raises: EngineError if no such server answers; ModelError if it can't sample from the model.
        """
        engine = cls(config, codec=codec, extensions=extensions)
        try:
            await engine._meet()
        except BaseException:
            await engine.close()
            raise
        return engine

    @property
    def window(self) -> int | None:
        return self._window

    @property
    def form(self) -> Form:
        """How the server is asked, as far as its answers have shown by now."""
        return FORMS[self._config.mode][self._form]

    async def complete(self, request: Request) -> Completion:
        if request.carry:
            raise cannot_carry(self)
        forms = FORMS[self._config.mode]
        refusal: StatusError | None = None
        for number in range(self._form, len(forms)):
            form = forms[number]
            body = form.body(request, model=self._config.model, codec=self._codec)
            body |= self._extensions if form.extensions else {}
            try:
                data = await self._ask("POST", form.path, body=body, retries=self._config.retries)
            except StatusError as error:
                if error.status not in _REFUSED:
                    raise
                refusal = error
                continue
            try:
                completion = read_completion(
                    data,
                    request=request,
                    form=form,
                    codec=self._codec,
                    scaled_logprobs=self.scaled_logprobs,
                )
            except EngineError as error:
                raise EngineError(
                    f"{self._base_url}{form.path}: {error}: {self._excerpt(str(data))}"
                ) from None
            if refusal is not None and number > self._form:
                self._form = number
                _log.warning("from now on: %s; because: %s", form, refusal)
            return completion
        assert refusal is not None, "there is a form to try"
        raise refusal

    async def close(self) -> None:
        await self._client.aclose()

    async def ask(self, path: str, *, body: dict[str, Any] | None = None) -> Any:
        """The JSON that the server answers, once, at a path of its own beside `/v1`; None if
        nothing. Args: `body`, to post; None: get.

        Raises: StatusError for an answer that isn't a success, EngineError if there is none.
        """
        method = "GET" if body is None else "POST"
        base = self._base_url.removesuffix("/v1")
        return await self._ask(method, path, retries=0, body=body, base_url=base)

    async def _meet(self) -> None:
        """Ask which models there are; if ours isn't listed, whether it can be sampled from."""
        try:
            models = _models(await self._ask("GET", "/models", retries=0))
        except StatusError as error:
            if error.status in (401, 403):
                raise
            models = {}  # some servers have no list, or fail to make it
        model = self._config.model
        if model not in models:
            # Proxies and servers that load on demand don't list all they have.
            try:
                await self.complete(probe(self._codec))
            except EngineError as error:
                listed = ", ".join(sorted(models)[:20]) or "none listed"
                raise ModelError(
                    f"{self._base_url}: can't sample from model {model!r}; "
                    f"it has: {listed}. It said: {error}"
                ) from error
        entry = models.get(model, {})
        self.scaled_logprobs = entry.get("owned_by") == "sglang"
        if self._window is None:
            self._window = _window(entry)

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        retries: int,
        body: dict[str, Any] | None = None,
        base_url: str | None = None,
    ) -> Any:
        """The JSON of a successful answer, after retries with exponential backoff and jitter."""
        url = (base_url or self._base_url) + path
        try:
            async for attempt in stamina.retry_context(
                on=self._wait_of,
                attempts=retries + 1,
                timeout=None,
                wait_initial=0.5,
                wait_max=30.0,
            ):
                with attempt:
                    return await self._try(method, url, body=body)
        except TimeoutError as error:
            raise EngineError(f"{url}: no answer within {self._config.timeout_s:g} s") from error
        except httpx2.HTTPError as error:
            raise EngineError(
                f"{url}: {type(error).__name__}: {self._excerpt(str(error))}"
            ) from error
        raise AssertionError("stamina either returns or raises")

    def _wait_of(self, error: Exception) -> bool | float:
        """Whether to try again, and after how many seconds if the server said."""
        if isinstance(error, StatusError):
            if error.status not in _BUSY and error.status < 500:
                return False
            return True if error.wait_s is None else min(error.wait_s, self._config.timeout_s)
        return isinstance(error, httpx2.TransportError | TimeoutError)

    async def _try(self, method: str, url: str, *, body: dict[str, Any] | None) -> Any:
        async with self._slots, asyncio.timeout(self._config.timeout_s):
            response = await self._client.request(method, url, json=body)
        excerpt = self._excerpt(response.text)
        status = response.status_code
        if status != 200:
            raise StatusError(
                f"{url}: HTTP {status}{self._hint(status)}: {excerpt}",
                status=status,
                wait_s=retry_after(
                    response.headers.get("retry-after"), now=response.headers.get("date")
                ),
            )
        try:
            data = response.json() if response.content else None
        except ValueError:
            raise EngineError(f"{url}: HTTP 200, but not JSON: {excerpt}") from None
        if isinstance(data, dict) and data.get("error"):
            # Proxies answer 200 and put the status of the server behind them here.
            code = data["error"].get("code") if isinstance(data["error"], dict) else None
            status = code if isinstance(code, int) else 200
            raise StatusError(f"{url}: HTTP 200, but an error: {excerpt}", status=status)
        return data

    def _hint(self, status: int) -> str:
        if status in (401, 403):
            return f" (put the key into the environment variable {self._config.api_key_env})"
        if status == 404:
            return " (check base_url, which mostly ends in /v1, and the names of model and mode)"
        return ""

    def _excerpt(self, text: str) -> str:
        """The beginning of foreign text, for messages; never with the key, should it echo it."""
        if self._key:
            text = text.replace(self._key, "***")
        return repr(text[:_EXCERPT_CHARS])


def _checked_url(config: OpenAIConfig) -> str:
    try:
        url = httpx2.URL(config.base_url)
    except httpx2.InvalidURL:
        url = httpx2.URL("")
    if url.scheme not in ("http", "https") or not url.host or url.query or url.fragment:
        raise ConfigError(
            f"engine.base_url {config.base_url!r}: give it as http://localhost:8000/v1"
        )
    if url.userinfo:
        raise ConfigError("engine.base_url holds a password: use engine.api_key_env instead")
    for name, least in (("concurrency", 1), ("retries", 0)):
        if getattr(config, name) < least:
            raise ConfigError(f"engine.{name} {getattr(config, name)}: make it {least} or more")
    if config.timeout_s <= 0:
        raise ConfigError(f"engine.timeout_s {config.timeout_s}: make it more than 0")
    return config.base_url.rstrip("/")


def probe(codec: Codec) -> Request:
    """For one token, whatever it is."""
    return Request(
        prompt_ids=codec.encode("Hi"),
        messages=(Message(role="user", content="Hi"),),
        max_tokens=1,
        stop=(),
        sampling=Sampling(),
    )


def _models(data: object) -> dict[str, Mapping[str, Any]]:
    """The entries of a server's list of models by their names."""
    match data:
        case {"data": [*entries]}:
            named = [entry for entry in entries if isinstance(entry, dict) and "id" in entry]
            return {str(entry["id"]): entry for entry in named}
    raise EngineError(f"not a list of models: {str(data)[:_EXCERPT_CHARS]!r}")


def _window(entry: Mapping[str, Any]) -> int | None:
    """Where servers say it: vLLM and SGLang; OpenRouter and Together; Groq; Mistral; llama.cpp."""
    meta = entry.get("meta")
    places = [entry.get(name) for name in ("max_model_len", "context_length", "context_window")]
    places += [entry.get("max_context_length")]
    places += [meta.get("n_ctx"), meta.get("n_ctx_train")] if isinstance(meta, dict) else []
    return next((place for place in places if isinstance(place, int) and place > 0), None)


def retry_after(value: str | None, *, now: str | None = None) -> float | None:
    """Seconds to wait, from seconds or an HTTP date (RFC 9110, 10.2.3).

    Args: `now`, the server's own time, also an HTTP date: its clock may not be ours.
    """
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    when, their_now = _date(value), _date(now) or datetime.now(UTC)
    return max(0.0, (when - their_now).total_seconds()) if when else None


def _date(value: str | None) -> datetime | None:
    try:
        return parsedate_to_datetime(value).astimezone(UTC) if value else None
    except ValueError:
        return None
