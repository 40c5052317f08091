"""The settings of the open web become tools, or say what is missing."""

import asyncio

import pytest

from mem1.errors import ConfigError
from mem1.settings import build
from mem1.tools.web import WebConfig, web_tools


def tools(**settings) -> list[str]:
    config = WebConfig(**({"provider": "searxng", "url": "http://127.0.0.1:1"} | settings))
    return [tool.name for tool in web_tools(config, observation_tokens=300)]


def test_the_agent_may_search_and_read_or_search_alone():
    assert tools() == ["search", "fetch"]
    assert tools(read=False) == ["search"]


def test_addresses_are_shown_to_those_who_can_read_them(web):
    server = web.serve(body=b'{"results": [{"title": "T", "url": "https://u/", "content": "c"}]}')

    def said(read: bool) -> str:
        config = WebConfig(provider="searxng", url=server.url, read=read)
        return asyncio.run(web_tools(config, observation_tokens=300)[0].call("x"))

    assert [said(read) for read in (True, False)] == [
        "Doc 1(Title: T) c (https://u/)",
        "Doc 1(Title: T) c",
    ]


def test_search_and_pages_share_a_recording(web, tmp_path):
    config = {"recording": str(tmp_path / "r"), "url": "http://127.0.0.1:1", "provider": "searxng"}
    record = web_tools(WebConfig(**config, mode="record"), observation_tokens=10)
    said = asyncio.run(record[1].call("http://127.0.0.1/"))
    replay = web_tools(WebConfig(**config, mode="replay"), observation_tokens=10)
    assert asyncio.run(replay[1].call("http://127.0.0.1/")) == said


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"mode": "record"}, "needs a folder"),
        ({"mode": "replay", "recording": "/no/such"}, "no such folder"),
        ({"url": None}, "needs its server's address"),
        ({"top_k": 0}, "top_k is 0"),
    ],
    ids=str,
)
def test_what_is_missing_is_said(settings, said):
    with pytest.raises(ConfigError, match=said):
        tools(**settings)


def test_unknown_settings_are_errors():
    with pytest.raises(ConfigError, match="providr"):
        build(WebConfig, {"providr": "serper"})
    with pytest.raises(ConfigError, match="provider"):
        build(WebConfig, {"provider": "bing"})
