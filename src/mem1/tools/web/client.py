"""ASK THE WEB WITHIN LIMITS: bytes, seconds, redirects, tries.

    WebRequest -> WebClient.send -> WebReply | PageError

For pages, whose address a model chose, with a `Guard`; for a search API, whose address the user
chose, with a `Secret`. No cookies are kept.
"""

import asyncio
import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx2
import stamina

from mem1.tools.web.guard import Guard, PageError, PinnedTransport

_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
_HEADERS = {
    "User-Agent": "Mozilla/5.0 (compatible; mem1-rl)",
    "Accept": "text/html,application/xhtml+xml,application/json,application/pdf,text/*;q=0.9",
    "Accept-Encoding": "gzip",
}
_EXCERPT = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class WebRequest:
    """What is asked, without any secret."""

    url: str
    method: Literal["GET", "POST"] = "GET"
    params: Mapping[str, str] = field(default_factory=dict[str, str])
    """Of the query string, besides those in `url`."""
    body: Mapping[str, Any] | None = None
    """Sent as JSON."""

    @property
    def key(self) -> str:
        """Its canonical form: equal for equal requests."""
        form = [self.method, self.url, dict(self.params), self.body]
        return json.dumps(form, sort_keys=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class WebReply:
    """A successful answer."""

    url: str
    """Where it came from in the end."""
    content_type: str
    """As sent, in lower case; empty if it wasn't."""
    body: bytes
    """Unpacked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """A key, and where it goes. It is added on the way out, where no log sees it."""

    place: Literal["header", "param"]
    name: str
    value: str = field(repr=False)
    prefix: str = ""

    def hide(self, text: str) -> str:
        return text.replace(self.value, "***")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one request may take."""

    max_bytes: int = 8 << 20
    """Of a body, on the wire and unpacked."""
    deadline_s: float = 30.0
    """For all of it: tries, waits and redirects."""
    redirects: int = 5
    attempts: int = 3


class StatusError(PageError):
    """An answer that isn't a success."""

    def __init__(self, status: int, *, said: str, wait_s: float | None) -> None:
        """Args: `said`, the beginning of its body, without secrets; `wait_s`, its Retry-After."""
        super().__init__(f"HTTP {status}")
        self.status, self.said, self.wait_s = status, said, wait_s


class WebClient:
    """Sends requests; usable from several event loops."""

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        guard: Guard | None = None,
        secret: Secret | None = None,
        accepts: Callable[[str], bool] = lambda content_type: True,
    ) -> None:
        """Args: `guard`, None: the user vouches for the address, and no redirect is followed;
        `accepts`, whether a content type is worth its body."""
        self.limits = limits or Limits()
        self._guard, self._secret, self._accepts = guard, secret, accepts
        # Making one takes 25 ms: once, not for each request.
        self._tls = httpx2.create_ssl_context()

    async def send(self, request: WebRequest) -> WebReply:
        """Raises: PageError for whatever isn't a successful reply within the limits."""
        try:
            async with asyncio.timeout(self.limits.deadline_s) as deadline:
                return await self._tries(request, ends=deadline.when() or 0.0)
        except TimeoutError as error:
            raise PageError(f"no answer within {self.limits.deadline_s:g} s") from error
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            raise PageError(f"the connection failed ({type(error).__name__})") from error

    async def _tries(self, request: WebRequest, *, ends: float) -> WebReply:
        def wait_of(error: Exception) -> bool | float:
            """Whether to try again, and after how many seconds if the server said."""
            if not isinstance(error, StatusError):
                return isinstance(error, httpx2.TransportError)
            if error.status not in _BUSY or error.wait_s is None:
                return error.status in _BUSY
            # A wait that outlasts the deadline would hide what the server said.
            now = asyncio.get_running_loop().time()
            return error.wait_s if now + error.wait_s < ends else False

        async for attempt in stamina.retry_context(
            on=wait_of, attempts=self.limits.attempts, timeout=None, wait_initial=0.3, wait_max=10.0
        ):
            with attempt:
                return await self._follow(request)
        raise AssertionError("stamina either returns or raises")

    async def _follow(self, request: WebRequest) -> WebReply:
        url = self._guard.check(request.url) if self._guard else httpx2.URL(request.url)
        if request.params:
            url = url.copy_merge_params(dict(request.params))
        for _ in range(self.limits.redirects + 1):
            answer = await self._once(request, url)
            if isinstance(answer, WebReply):
                return answer
            url = answer
        raise PageError(f"it redirects more than {self.limits.redirects} times")

    async def _once(self, request: WebRequest, url: httpx2.URL) -> WebReply | httpx2.URL:
        """The reply, or where it is said to be."""
        content = None if request.body is None else json.dumps(request.body).encode()
        headers = _HEADERS | ({"Content-Type": "application/json"} if content else {})
        # A client for each request: no cookies, no connection that was checked for another name.
        async with (
            httpx2.AsyncClient(timeout=None, transport=self._transport()) as client,
            client.stream(request.method, url, content=content, headers=headers) as response,
        ):
            if response.is_redirect and self._guard:
                return _target(response, base=url, guard=self._guard)
            if not response.is_success:
                said = await _body(response, max_bytes=self.limits.max_bytes)
                raise StatusError(
                    response.status_code,
                    said=self.excerpt(said),
                    wait_s=_wait(response.headers.get("retry-after", "")),
                )
            content_type = response.headers.get("content-type", "").lower()
            if not self._accepts(content_type):
                kind = content_type.partition(";")[0][:60]
                raise PageError(f"it's {kind}, which isn't text")
            body = await _body(response, max_bytes=self.limits.max_bytes)
        return WebReply(url=str(url), content_type=content_type, body=body)

    def _transport(self) -> httpx2.AsyncBaseTransport:
        if self._guard is None:
            inner = httpx2.AsyncHTTPTransport(verify=self._tls)
            return _KeyedTransport(self._secret, inner=inner) if self._secret else inner
        inner = httpx2.AsyncHTTPTransport(verify=self._tls, trust_env=False)
        return PinnedTransport(self._guard, inner=inner)

    def excerpt(self, body: bytes) -> str:
        """The beginning of a body, for messages; without the secret, should a server echo it."""
        text = body.decode("utf-8", "replace")
        return (self._secret.hide(text) if self._secret else text)[:_EXCERPT]


class _KeyedTransport(httpx2.AsyncBaseTransport):
    """Adds a secret behind the client, which logs the URLs it asks for."""

    def __init__(self, secret: Secret, *, inner: httpx2.AsyncBaseTransport) -> None:
        self._secret, self._inner = secret, inner

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        secret = self._secret
        headers, url = request.headers.copy(), request.url
        if secret.place == "header":
            headers[secret.name] = secret.prefix + secret.value
        else:
            url = url.copy_add_param(secret.name, secret.value)
        keyed = httpx2.Request(
            request.method,
            url,
            headers=headers,
            stream=request.stream,
            extensions=request.extensions,
        )
        return await self._inner.handle_async_request(keyed)

    async def aclose(self) -> None:
        await self._inner.aclose()


def _target(response: httpx2.Response, *, base: httpx2.URL, guard: Guard) -> httpx2.URL:
    try:
        target = base.join(response.headers["location"])
    except (httpx2.InvalidURL, ValueError, KeyError):
        raise PageError("it redirects to nowhere") from None
    return guard.check(str(target))


async def _body(response: httpx2.Response, *, max_bytes: int) -> bytes:
    """The unpacked body. Raises: PageError beyond `max_bytes` of it, packed or not."""
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "", "gzip", "x-gzip"):
        raise PageError(f"it's packed as {encoding[:20]!r}")
    unpacker = zlib.decompressobj(wbits=31) if "gzip" in encoding else None
    body, wire = bytearray(), 0
    async for chunk in response.aiter_raw():
        wire += len(chunk)
        try:
            body += unpacker.decompress(chunk, max_bytes + 1 - len(body)) if unpacker else chunk
        except zlib.error:
            raise PageError("it's packed in a broken way") from None
        if max(wire, len(body)) > max_bytes:
            raise PageError(f"it's larger than {max_bytes / 2**20:g} MiB")
    return bytes(body)


def _wait(value: str) -> float | None:
    """Seconds of a Retry-After header (RFC 9110, 10.2.3); a date counts as not given."""
    return float(value) if value.strip().isdecimal() else None
