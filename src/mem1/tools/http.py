"""A retriever behind the `/retrieve` wire API that Search-R1 and its relatives share.

query -> POST /retrieve {"queries": […], "topk": k, "return_scores": true} -> [Passage]
"""

import asyncio
import json
from typing import Any

import httpx2
import stamina

from mem1.errors import ConfigError, ToolError
from mem1.tools.search import Passage

_RETRIED_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


class _BusyError(Exception):
    """An answer after which it's worth trying again."""

    def __init__(self, message: str, *, wait_s: float | None) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class HTTPRetriever:
    """A `Retriever` over HTTP; understands answers with and without scores."""

    def __init__(
        self,
        base_url: str,
        *,
        timeout_s: float = 30.0,
        attempts: int = 4,
        token: str | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        """Args: `base_url`, with or without `/retrieve`; `timeout_s`, for all of one try, and the
        most that a server's `Retry-After` can ask for; `attempts`, tries of one search in all;
        `token`, of a server that wants one; `transport`, how requests travel (for tests)."""
        if not base_url.startswith(("http://", "https://")):
            raise ConfigError(f"retriever.url {base_url!r}: start it with http:// or https://")
        self._url = base_url.rstrip("/").removesuffix("/retrieve") + "/retrieve"
        self._attempts = attempts
        self._headers = {"Content-Type": "application/json"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._timeout_s = timeout_s
        self._transport = transport
        # Making one takes 25 ms: once, not for each search.
        self._tls = httpx2.create_ssl_context()

    async def search(self, query: str, *, top_k: int) -> list[Passage]:
        try:
            async for attempt in stamina.retry_context(
                on=self._wait_of,
                attempts=self._attempts,
                timeout=None,
                wait_initial=0.2,
                wait_max=10.0,
            ):
                with attempt:
                    return await self._ask(query, top_k=top_k)
        except (_BusyError, httpx2.HTTPError, TimeoutError) as error:
            raise ToolError(f"retriever {self._url}: {error!r}") from error
        raise AssertionError("stamina either returns or raises")

    def _wait_of(self, error: Exception) -> bool | float:
        """Whether to try again, and after how many seconds if the server said."""
        if isinstance(error, _BusyError):
            return True if error.wait_s is None else min(error.wait_s, self._timeout_s)
        return isinstance(error, httpx2.TransportError | TimeoutError)

    async def _ask(self, query: str, *, top_k: int) -> list[Passage]:
        # ASCII: a sampled query may hold half a surrogate pair, which UTF-8 cannot.
        body = json.dumps({"queries": [query], "topk": top_k, "return_scores": True}).encode()
        # A client for each search: a pool would be bound to the event loop that it began in. Its
        # own timeout limits each read; ours, the sum of them.
        async with (
            asyncio.timeout(self._timeout_s),
            httpx2.AsyncClient(timeout=None, transport=self._transport, verify=self._tls) as client,
        ):
            response = await client.post(self._url, content=body, headers=self._headers)
        if response.status_code in _RETRIED_STATUS:
            wait = response.headers.get("retry-after", "")
            raise _BusyError(
                f"HTTP {response.status_code}", wait_s=float(wait) if wait.isdigit() else None
            )
        if response.status_code != 200:
            raise ToolError(f"retriever {self._url}: HTTP {response.status_code}")
        try:
            hits = response.json()["result"][0]
            return [_passage(hit) for hit in hits[:top_k]]
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise ToolError(
                f"retriever {self._url}: not the /retrieve API: {response.text[:120]!r}"
            ) from error


def _passage(hit: dict[str, Any]) -> Passage:
    document = hit.get("document", hit)
    contents = document.get("contents") or f'"{document["title"]}"\n{document["text"]}'
    return Passage.of_contents(
        str(document.get("id", "")), contents, score=float(hit.get("score", 0.0))
    )
