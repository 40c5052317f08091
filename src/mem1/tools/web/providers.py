"""SEARCH APIS, one small adapter each: how it is asked, and where its answer holds what.

    query -> Provider.request -> WebRequest;   its JSON -> Provider.hits -> [Hit]

Field names as the vendors' documentation has them; Serper's also as recorded.
"""

import html
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from mem1.tools.web.client import Secret, WebRequest

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A search result, the same for all providers. Foreign text."""

    title: str
    url: str
    snippet: str


class Provider(Protocol):
    """A search API."""

    @property
    def url(self) -> str | None:
        """Where it is; None: the user has to say."""
        ...

    @property
    def key_env(self) -> str | None:
        """The environment variable that holds its key; None: it has none."""
        ...

    def secret(self, key: str) -> Secret: ...

    def request(self, url: str, *, query: str, count: int) -> WebRequest: ...

    def hits(self, data: Json) -> Iterator[Hit]:
        """Raises: KeyError or TypeError for what isn't this API's answer."""
        ...


class Serper:
    """Google through serper.dev."""

    url = "https://google.serper.dev/search"
    key_env = "SERPER_API_KEY"

    def secret(self, key: str) -> Secret:
        return Secret(place="header", name="X-API-KEY", value=key)

    def request(self, url: str, *, query: str, count: int) -> WebRequest:
        return WebRequest(url=url, method="POST", body={"q": query, "num": count})

    def hits(self, data: Json) -> Iterator[Hit]:
        yield from _box(data.get("answerBox"), link="link")
        yield from _hits(data["organic"], url="link", snippet="snippet")


class SerpApi:
    """Google through serpapi.com."""

    url = "https://serpapi.com/search.json"
    key_env = "SERPAPI_API_KEY"

    def secret(self, key: str) -> Secret:
        return Secret(place="param", name="api_key", value=key)

    def request(self, url: str, *, query: str, count: int) -> WebRequest:
        return WebRequest(url=url, params={"engine": "google", "q": query, "num": str(count)})

    def hits(self, data: Json) -> Iterator[Hit]:
        # It calls it an error when Google finds nothing.
        if "organic_results" not in data and "any results" in str(data.get("error")):
            return
        yield from _box(data.get("answer_box"), link="link")
        yield from _hits(data["organic_results"], url="link", snippet="snippet")


class Brave:
    """Brave's own index."""

    url = "https://api.search.brave.com/res/v1/web/search"
    key_env = "BRAVE_API_KEY"

    def secret(self, key: str) -> Secret:
        return Secret(place="header", name="X-Subscription-Token", value=key)

    def request(self, url: str, *, query: str, count: int) -> WebRequest:
        params = {"q": query, "count": str(min(count, 20)), "text_decorations": "false"}
        return WebRequest(url=url, params=params)

    def hits(self, data: Json) -> Iterator[Hit]:
        if data["type"] != "search":
            raise KeyError("search")
        # `web` is absent when nothing was found; texts are HTML.
        for hit in _hits(data.get("web", {"results": []})["results"], snippet="description"):
            yield Hit(
                title=html.unescape(hit.title), url=hit.url, snippet=html.unescape(hit.snippet)
            )


class Tavily:
    """A search made for agents; its snippets are passages of the pages."""

    url = "https://api.tavily.com/search"
    key_env = "TAVILY_API_KEY"

    def secret(self, key: str) -> Secret:
        return Secret(place="header", name="Authorization", value=key, prefix="Bearer ")

    def request(self, url: str, *, query: str, count: int) -> WebRequest:
        body = {"query": query, "max_results": min(count, 20)}
        return WebRequest(url=url, method="POST", body=body)

    def hits(self, data: Json) -> Iterator[Hit]:
        yield from _hits(data["results"], snippet="content")


class SearXNG:
    """One's own metasearch server, with `json` among the formats of its settings.yml."""

    url = None
    key_env = None

    def secret(self, key: str) -> Secret:
        raise AssertionError("SearXNG has no key")

    def request(self, url: str, *, query: str, count: int) -> WebRequest:
        address = url.rstrip("/").removesuffix("/search") + "/search"
        return WebRequest(url=address, params={"q": query, "format": "json"})

    def hits(self, data: Json) -> Iterator[Hit]:
        yield from _hits(data["results"], snippet="content")


ProviderName = Literal["serper", "serpapi", "brave", "tavily", "searxng"]
PROVIDERS: dict[ProviderName, Provider] = {
    "serper": Serper(),
    "serpapi": SerpApi(),
    "brave": Brave(),
    "tavily": Tavily(),
    "searxng": SearXNG(),
}


def _hits(results: Iterable[Json], *, snippet: str, url: str = "url") -> Iterator[Hit]:
    """The results that have an address; one without says nothing that could be checked."""
    if not isinstance(results, list):
        raise TypeError(f"{type(results).__name__} where the results should be")
    for result in results:
        if isinstance(result, dict) and isinstance(result.get(url), str):
            yield Hit(
                title=_text(result.get("title")),
                url=result[url],
                snippet=_text(result.get(snippet)),
            )


def _box(box: Any, *, link: str) -> Iterator[Hit]:
    """Google's own answer above the results."""
    if isinstance(box, dict) and isinstance(box.get(link), str):
        parts = [_text(box.get("answer")), _text(box.get("snippet"))]
        said = " ".join(part for part in parts if part)
        if said:
            yield Hit(title=_text(box.get("title")), url=box[link], snippet=said)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
