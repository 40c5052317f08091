"""SEARCH THE WEB: a `Retriever` over any of the providers.

    query -> Provider.request -> Recording | WebClient -> Provider.hits -> [Passage]

A passage's text is the snippet, and behind it the address, for a tool that reads pages.
"""

import json
import os
import re
from collections.abc import Sequence

from mem1.errors import ConfigError, ToolError
from mem1.tools.search import Passage
from mem1.tools.web.client import Limits, StatusError, WebClient, WebReply, WebRequest
from mem1.tools.web.guard import PageError
from mem1.tools.web.providers import PROVIDERS, Hit, ProviderName
from mem1.tools.web.recording import Recording

MAX_QUERY = 400
"""Characters: the least that a provider allows (Brave)."""
_SPENT = re.compile(r"credit|quota|run out|usage limit", re.IGNORECASE)
_LIMITS = Limits(max_bytes=4 << 20, deadline_s=60.0, attempts=4)


class WebSearch:
    """A `Retriever` that asks a search API."""

    def __init__(
        self,
        provider: ProviderName,
        *,
        url: str | None = None,
        recording: Recording | None = None,
        show_urls: bool = True,
        limits: Limits = _LIMITS,
    ) -> None:
        """Args: `url`, of the API, None: the provider's own; `recording`, None: live; `show_urls`,
        whether a passage's text ends with its address.

        Raises: ConfigError for a provider that doesn't exist, has no address, or lacks its key.
        """
        if provider not in PROVIDERS:
            raise ConfigError(
                f"retriever.provider {provider!r}: take one of {', '.join(PROVIDERS)}"
            )
        self._name, self._api = provider, PROVIDERS[provider]
        self._recording = recording or Recording()
        self._show_urls = show_urls
        address = url or self._api.url
        if not address or not address.startswith(("http://", "https://")):
            raise ConfigError(
                f"retriever.url {url!r}: {provider} needs its server's address, "
                'such as "http://localhost:8888"'
            )
        self._url = address
        key = self._key()
        secret = self._api.secret(key) if key else None
        self._client = WebClient(limits=limits, secret=secret)

    async def search(self, query: str, *, top_k: int) -> list[Passage]:
        # A sampled query may hold half a surrogate pair, which no URL can.
        words = " ".join(query.encode("utf-8", "replace").decode().split())[:MAX_QUERY]
        if not words:
            return []
        request = self._api.request(self._url, query=words, count=top_k)
        reply = await self._recording.reply(request, self._ask)
        return [
            self._passage(hit, rank=rank)
            for rank, hit in enumerate(self._hits(reply)[:top_k], start=1)
        ]

    def _passage(self, hit: Hit, *, rank: int) -> Passage:
        text = f"{hit.snippet} ({hit.url})" if self._show_urls else hit.snippet
        return Passage(id=hit.url, title=hit.title, text=text, score=1 / rank)

    def _key(self) -> str:
        """The key; empty where none is needed: by the provider, or because nothing is asked."""
        name = self._api.key_env
        if name is None or self._recording.mode == "replay":
            return ""
        key = os.environ.get(name, "").strip()
        if not key:
            raise ConfigError(
                f"no key for {self._name}: put it into the environment variable {name}"
            )
        if not key.isascii() or not key.isprintable():
            raise ConfigError(f"the environment variable {name} holds no key: it isn't plain text")
        return key

    async def _ask(self, request: WebRequest) -> WebReply:
        """A reply that holds results. Raises: ToolError, so that nothing else is recorded."""
        try:
            reply = await self._client.send(request)
        except StatusError as error:
            raise ToolError(f"{self._name}: {self._meaning(error)}: {error.said!r}") from None
        except PageError as error:
            raise ToolError(f"{self._name}, {self._url}: {error}") from None
        self._hits(reply)
        return reply

    def _hits(self, reply: WebReply) -> Sequence[Hit]:
        try:
            data = json.loads(reply.body)
            return list(self._api.hits(data))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            said = self._client.excerpt(reply.body)
            raise ToolError(
                f"{self._name}, {self._url}: not its API's answer ({error!r}): {said!r}"
            ) from None

    def _meaning(self, error: StatusError) -> str:
        """What a refusal means, in plain words."""
        status = error.status
        if status in (402, 432, 433) or (400 <= status < 500 and _SPENT.search(error.said)):
            return f"the quota is used up (HTTP {status})"
        if status == 429:
            wait = f", it asks to wait {error.wait_s:g} s" if error.wait_s else ""
            return f"too many requests (HTTP 429{wait})"
        if self._api.key_env is None and status == 403:
            return "HTTP 403: add json to search.formats in its settings.yml"
        if status in (401, 403):
            return f"the key in {self._api.key_env} is refused (HTTP {status})"
        return f"HTTP {status}"
