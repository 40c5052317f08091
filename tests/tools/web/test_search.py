"""Five search APIs, asked as they want to be, answer alike; what they refuse is told plainly."""

import asyncio
import gzip
import json
import logging

import pytest

from mem1.errors import ConfigError, ToolError
from mem1.tools import Passage, Retriever, SearchTool
from mem1.tools.web import PROVIDERS, Limits, Recording, WebSearch

KEY = "sk-very-secret-4711"
JSON = {"Content-Type": "application/json"}
RESULT = {"title": "Paris & more", "link": "https://p.example/a?b=1", "snippet": "A city."}
BRAVE = {"title": "Paris &amp; more", "url": RESULT["link"], "description": "A city."}
OTHER = {"title": RESULT["title"], "url": RESULT["link"], "content": "A city."}
NO_ADDRESS = {"title": "Only a title"}

ANSWERS = {
    "serper": {"searchParameters": {}, "organic": [NO_ADDRESS, RESULT, RESULT], "credits": 1},
    "serpapi": {"search_metadata": {}, "organic_results": [RESULT, None, RESULT]},
    "brave": {"type": "search", "web": {"results": [BRAVE, BRAVE]}},
    "tavily": {"query": "q", "answer": None, "results": [OTHER, OTHER, "text"]},
    "searxng": {"query": "q", "results": [OTHER | {"content": None}, OTHER]},
}
EMPTY = {
    "serper": {"organic": []},
    "serpapi": {"error": "Google hasn't returned any results for this query."},
    "brave": {"type": "search", "query": {}},
    "tavily": {"results": []},
    "searxng": {"results": []},
}


@pytest.fixture(autouse=True)
def keys(monkeypatch):
    for provider in PROVIDERS.values():
        if provider.key_env:
            monkeypatch.setenv(provider.key_env, KEY)


def find(server, provider="serper", *, query="where is Paris?", top_k=2, **settings):
    settings = {"limits": Limits(deadline_s=5, attempts=2)} | settings
    search = WebSearch(provider, url=server.url, **settings)
    return asyncio.run(search.search(query, top_k=top_k))


def answering(web, data, **reply):
    return web.serve(body=json.dumps(data).encode(), headers=JSON, **reply)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_all_providers_answer_alike(web, provider):
    found = find(answering(web, ANSWERS[provider]), provider, show_urls=False)
    text = "" if provider == "searxng" else "A city."
    assert found[0] == Passage(id=RESULT["link"], title=RESULT["title"], text=text, score=1.0)
    assert [passage.score for passage in found] == [1.0, 0.5]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_finding_nothing_is_no_error_and_more_than_asked_for_is_cut(web, provider):
    assert find(answering(web, EMPTY[provider]), provider) == []
    assert len(find(answering(web, ANSWERS[provider]), provider, top_k=1)) == 1


@pytest.mark.parametrize(
    ("provider", "method", "path", "body", "header"),
    [
        ("serper", "POST", "/", {"q": "é?", "num": 2}, ("x-api-key", KEY)),
        ("serpapi", "GET", f"/?engine=google&q=%C3%A9%3F&num=2&api_key={KEY}", None, None),
        (
            *("brave", "GET", "/?q=%C3%A9%3F&count=2&text_decorations=false", None),
            ("x-subscription-token", KEY),
        ),
        (
            *("tavily", "POST", "/", {"query": "é?", "max_results": 2}),
            ("authorization", f"Bearer {KEY}"),
        ),
        ("searxng", "GET", "/search?q=%C3%A9%3F&format=json", None, None),
    ],
)
def test_each_is_asked_as_it_wants_to_be(web, provider, method, path, body, header):
    server = answering(web, ANSWERS[provider])
    find(server, provider, query=" é?\n")
    asked = server.asked[0]
    sent = json.loads(asked.body) if asked.body else None
    assert (asked.method, asked.path, sent) == (method, path, body)
    name, value = header or ("host", server.url.removeprefix("http://"))
    assert asked.headers[name] == value


def test_the_tool_shows_titles_snippets_and_addresses(web):
    search = WebSearch("serper", url=answering(web, ANSWERS["serper"]).url)
    said = asyncio.run(SearchTool(search, top_k=1).call("Paris"))
    assert said == "Doc 1(Title: Paris & more) A city. (https://p.example/a?b=1)"
    assert isinstance(search, Retriever)


def test_googles_own_answer_comes_first(web):
    box = {"title": "Height", "answer": "330 m", "snippet": "It is high.", "link": "https://t/"}
    serper = answering(web, {"answerBox": box, "organic": [RESULT]})
    serpapi = answering(web, {"answer_box": box, "organic_results": [RESULT]})
    first = Passage(id="https://t/", title="Height", text="330 m It is high.", score=1.0)
    assert find(serper, show_urls=False)[0] == find(serpapi, "serpapi", show_urls=False)[0] == first


def test_an_empty_or_odd_query_does_no_harm(web):
    server = answering(web, ANSWERS["serper"])
    assert find(server, query=" \n") == []
    assert len(find(server, query="\ud83d\x00" + "x" * 5000)) == 2
    assert [len(json.loads(asked.body)["q"]) for asked in server.asked] == [400]


def test_a_missing_key_names_its_variable(monkeypatch):
    for name, provider in PROVIDERS.items():
        if provider.key_env:
            for value in ("", "  ", "line\nbreak", "ключ"):
                monkeypatch.setenv(provider.key_env, value)
                with pytest.raises(ConfigError, match=provider.key_env):
                    WebSearch(name)
            monkeypatch.delenv(provider.key_env)
            with pytest.raises(ConfigError, match=f"put it into .* {provider.key_env}"):
                WebSearch(name)


def test_what_isnt_a_provider_or_has_no_address_is_refused():
    with pytest.raises(ConfigError, match="'bing': take one of serper, serpapi"):
        WebSearch("bing")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="needs its server's address"):
        WebSearch("searxng")
    with pytest.raises(ConfigError, match="'localhost:8888'"):
        WebSearch("searxng", url="localhost:8888")


@pytest.mark.parametrize(
    ("provider", "status", "said", "told"),
    [
        ("serper", 400, {"message": "Not enough credits"}, r"quota is used up \(HTTP 400\)"),
        ("serper", 403, {"message": "Unauthorized."}, "SERPER_API_KEY is refused"),
        ("serpapi", 429, {"error": "Your account has run out of searches."}, "quota is used up"),
        ("serpapi", 401, {"error": "Invalid API key."}, "SERPAPI_API_KEY is refused"),
        ("brave", 429, {"error": {"code": "RATE_LIMITED"}}, "too many requests"),
        ("brave", 402, {}, "quota is used up"),
        ("tavily", 432, {"detail": {"error": "plan"}}, "quota is used up"),
        ("tavily", 500, {}, "tavily: HTTP 500"),
        ("searxng", 403, {}, "add json to search.formats"),
        ("searxng", 301, {}, "HTTP 301"),
    ],
)
def test_a_refusal_is_told_plainly(web, provider, status, said, told):
    server = answering(web, said, status=status)
    with pytest.raises(ToolError, match=told):
        find(server, provider)


def test_a_long_wait_isnt_waited_for(web):
    busy = web.serve(status=429, headers={"Retry-After": "3600"})
    with pytest.raises(ToolError, match="asks to wait 3600 s"):
        find(busy)
    assert len(busy.asked) == 1


def test_a_busy_api_is_asked_again_after_the_time_it_names(web):
    replies = iter(
        [
            web.Reply(status=429, headers={"Retry-After": "0"}),
            web.Reply(json.dumps(ANSWERS["serper"]).encode()),
        ]
    )
    assert len(find(web.serve(lambda _asked: next(replies)))) == 2


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize(
    "body",
    [
        *(b"<html>Sign in</html>", b"", b"null", b"[]", b"3", b'{"organic": {}}', b"{}"),
        *(b'{"error": "x"}', b'{"type": "search", "web": []}', b"[" * 100_000, b"\xff"),
        b'{"results": "x", "organic_results": 1, "organic": "y", "type": "ErrorResponse"}',
    ],
    ids=lambda body: ascii(body[:12]),
)
def test_what_isnt_the_apis_answer_is_an_error_never_text(web, provider, body, tmp_path):
    recording = Recording(tmp_path, mode="record")
    with pytest.raises(ToolError, match=f"{provider}, .*not its API's answer"):
        find(web.serve(body=body), provider, recording=recording)
    assert list(tmp_path.iterdir()) == []


def test_an_api_that_is_down_or_drips_or_floods_is_an_error(web):
    down = web.serve()
    down.shutdown()
    down.server_close()
    with pytest.raises(ToolError, match="the connection failed"):
        find(down)
    with pytest.raises(ToolError, match="no answer within"):
        find(web.serve(body=[b" "] * 30, delay_s=1), limits=Limits(deadline_s=0.3))
    with pytest.raises(ToolError, match="larger than 1 MiB"):
        find(web.serve(body=b" " * 2_000_000), limits=Limits(max_bytes=1 << 20))


def test_a_search_is_replayed_without_key_and_network(web, tmp_path, monkeypatch):
    server = answering(web, ANSWERS["serper"])
    recorded = find(server, recording=Recording(tmp_path, mode="record"))
    monkeypatch.delenv("SERPER_API_KEY")
    assert find(server, recording=Recording(tmp_path, mode="replay")) == recorded
    assert len(server.asked) == 1
    with pytest.raises(ToolError, match="where is Rome"):
        find(server, query="where is Rome?", recording=Recording(tmp_path, mode="replay"))


@pytest.mark.parametrize("provider", [name for name, api in PROVIDERS.items() if api.key_env])
@pytest.mark.parametrize("status", [200, 400, 401, 429, 500])
def test_the_key_is_in_no_log_no_error_and_no_file(web, provider, status, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)

    def echo(asked):
        secret = asked.headers.get("authorization", KEY)
        assert KEY in f"{asked.path} {asked.headers}"
        # The second echo straddles the place where an excerpt ends.
        body = f"{secret}{'x' * 165}{KEY}".encode()
        return web.Reply(body, status=status, headers={"Retry-After": "0"})

    recording = Recording(tmp_path, mode="record")
    with pytest.raises(ToolError) as error:
        find(web.serve(echo), provider, recording=recording)
    find(answering(web, ANSWERS[provider]), provider, recording=recording)
    files = [gzip.decompress(path.read_bytes()) for path in tmp_path.rglob("*.json.gz")]
    assert KEY[:9] not in f"{error.value!r} {caplog.text} {recording!r}"
    assert "***" in str(error.value)
    assert (len(files), KEY[:9].encode() in b"".join(files)) == (1, False)
