"""What was recorded is replayed without the network, byte for byte; what wasn't is named."""

import asyncio
import gzip
import itertools
import json

import pytest

from mem1.errors import ConfigError, DataError, ToolError
from mem1.tools.web import FetchTool, PageError, Recording, WebReply, WebRequest

REQUEST = WebRequest(url="https://a.example/", method="POST", body={"q": "x", "num": 3})
REPLY = WebReply(url="https://b.example/", content_type="text/html", body=bytes(range(256)) * 3)


def replying(recording: Recording, *, reply=REPLY, request=REQUEST, asked: list | None = None):
    async def ask(_request):
        if asked is not None:
            asked.append(request)
        await asyncio.sleep(0.01)
        if isinstance(reply, Exception):
            raise reply
        return reply

    return recording.reply(request, ask)


def test_a_reply_is_asked_for_once_and_comes_back_byte_for_byte(tmp_path):
    asked: list[WebRequest] = []
    for mode in ("record", "record", "replay"):
        recording = Recording(tmp_path, mode=mode)
        assert asyncio.run(replying(recording, asked=asked)) == REPLY
    assert len(asked) == 1


def test_live_keeps_nothing(tmp_path):
    assert asyncio.run(replying(Recording(tmp_path))) == REPLY
    assert list(tmp_path.iterdir()) == []


def test_equal_requests_at_once_are_asked_once(tmp_path):
    asked: list[WebRequest] = []

    async def at_once():
        recording = Recording(tmp_path, mode="record")
        return await asyncio.gather(*(replying(recording, asked=asked) for _ in range(8)))

    assert asyncio.run(at_once()) == [REPLY] * 8
    assert len(asked) == 1


def test_what_the_agent_was_told_of_a_page_is_recorded_and_a_failed_tool_is_not(tmp_path):
    recording = Recording(tmp_path, mode="record")
    page, search = WebRequest(url="https://p/"), WebRequest(url="https://s/")
    with pytest.raises(PageError):
        asyncio.run(replying(recording, reply=PageError("HTTP 404"), request=page))
    with pytest.raises(ToolError):
        asyncio.run(replying(recording, reply=ToolError("quota"), request=search))
    replay = Recording(tmp_path, mode="replay")
    with pytest.raises(PageError, match="HTTP 404"):
        asyncio.run(replying(replay, request=page))
    with pytest.raises(ToolError, match="holds no reply"):
        asyncio.run(replying(replay, request=search))


def test_replay_names_the_request_that_is_missing_and_asks_nobody(tmp_path):
    asked: list[WebRequest] = []
    with pytest.raises(ToolError) as error:
        asyncio.run(replying(Recording(tmp_path, mode="replay"), asked=asked))
    assert 'no reply to ["POST", "https://a.example/", {}, {"num": 3, "q": "x"}]' in str(
        error.value
    )
    assert not isinstance(error.value, PageError)
    assert asked == []


def test_a_page_is_replayed_as_it_was_shown_after_its_server_is_gone(web, tmp_path):
    server = web.serve(body="<p>Été</p>".encode("latin-1"))
    guard, url = web.guard(server), f"{server.url}/p?q=1"

    def read(mode, url):
        tool = FetchTool(guard=guard, recording=Recording(tmp_path, mode=mode))
        return asyncio.run(tool.call(url))

    first = read("record", url), read("record", "http://10.0.0.1/")
    server.shutdown()
    server.server_close()
    assert (read("replay", url), read("replay", "http://10.0.0.1/")) == first
    assert "Été" in first[0]
    assert "it isn't on the public web" in first[1]
    assert len(server.asked) == 1
    with pytest.raises(ToolError, match="p\\?q=2"):
        read("replay", f"{server.url}/p?q=2")


def test_each_difference_of_a_request_is_another_request():
    keys = {
        WebRequest(url=url, method=method, params=params, body=body).key
        for url in ("https://a/", "https://b/")
        for method in ("GET", "POST")
        for params in ({}, {"q": "1"})
        for body in (None, {}, {"q": "1"})
    }
    assert len(keys) == 24
    ordered = WebRequest(url="u", params={"a": "1", "b": "2"}).key
    assert ordered == WebRequest(url="u", params={"b": "2", "a": "1"}).key


def stored(tmp_path):
    Recording(tmp_path, mode="record").store(REQUEST, REPLY)
    return next(tmp_path.rglob("*.json.gz"))


def test_the_file_is_legible_and_the_same_each_time(tmp_path):
    path = stored(tmp_path)
    first = path.read_bytes()
    assert stored(tmp_path).read_bytes() == first
    record = json.loads(gzip.decompress(first))
    assert (record["schema_version"], json.loads(record["request"])[3]) == (1, {"q": "x", "num": 3})


def packed(content):
    """Without the time of day in it: every worker must collect the same tests."""
    return gzip.compress(content, mtime=0)


@pytest.mark.parametrize("mode", ["record", "replay"])
@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"no gzip", packed(b"no json"), packed(b"{}"), packed(b"[]")),
        *(packed(b'{"schema_version": 1}'), packed(b'{"schema_version": 99}')),
        packed(b'{"schema_version": 1}')[:-9],
    ],
    ids=itertools.count(),
)
def test_a_file_that_cant_be_used_is_named(tmp_path, mode, content):
    path = stored(tmp_path)
    path.write_bytes(content)
    with pytest.raises(DataError, match=path.name):
        asyncio.run(replying(Recording(tmp_path, mode=mode)))


def test_a_mode_without_its_folder_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="needs a folder"):
        Recording(mode="record")
    with pytest.raises(ConfigError, match="no such folder"):
        Recording(tmp_path / "absent", mode="replay")
