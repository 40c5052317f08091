"""Reading pages from a server that behaves well or badly: text, or a plain reason, in time."""

import asyncio
import gzip
import importlib.util
import io
import itertools
import time
import tracemalloc
import zlib

import pytest

from mem1.errors import ConfigError, MissingExtraError
from mem1.tools import Tool
from mem1.tools.web import FetchTool, Limits, extract
from mem1.tools.web.fetch import HOW, select, split

FACTS = [f"Fact {n} of the town is that its tower number {n} is high." for n in range(60)]
FACTS[40] = "The population of the town is 4,711 people since the census."
PARAGRAPHS = "".join(f"<p>{fact}</p>" for fact in FACTS)
PAGE = (
    "<html><head><title>The  town</title><script>alert(1)</script></head><body><nav>Menu</nav>"
    f"<article><h1>The town</h1>{PARAGRAPHS}</article></body></html>"
).encode()


def read(web, server, *, words: str = "", **settings) -> str:
    tool = FetchTool(guard=web.guard(server), **settings)
    return asyncio.run(tool.call(f"{server.url}/page {words}"))


def reason(web, server, **settings) -> str:
    said = read(web, server, **settings)
    assert said.startswith(f"{server.url}/page can't be read: "), said
    return said.partition("can't be read: ")[2]


def test_a_page_is_shown_as_passages_about_the_words_within_the_cap(web):
    server = web.serve(body=PAGE)
    said = read(web, server, words="population census", max_chars=700)
    head, *passages = said.split("\n")
    assert head == f"Page(Title: The town) {server.url}/page"
    assert [passage.split()[0] for passage in passages] == ["[5/6]"]
    assert "4,711 people" in said


def test_a_page_without_words_is_shown_from_its_beginning(web):
    lines = read(web, web.serve(body=PAGE), max_chars=1300).split("\n")
    assert [line.split()[0] for line in lines[1:]] == ["[1/6]", "[2/6]"]
    assert "Menu" not in "".join(lines)
    assert "alert" not in "".join(lines)


def test_it_asks_as_itself_without_cookies_or_a_referrer(web):
    server = web.serve(
        lambda asked: (
            web.Reply(status=302, headers={"Location": "/b", "Set-Cookie": "id=1"})
            if asked.path == "/page"
            else web.Reply(b"<p>arrived</p>")
        )
    )
    assert "arrived" in read(web, server)
    assert [asked.path for asked in server.asked] == ["/page", "/b"]
    names = {"host", "accept", "accept-encoding", "connection", "user-agent"}
    assert set(server.asked[1].headers) == names
    assert "mem1" in server.asked[1].headers["user-agent"]


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ({"status": 404}, "HTTP 404."),
        ({"status": 403, "body": b"<p>robots</p>"}, "HTTP 403."),
        ({"headers": {"Content-Type": "image/png"}}, "it's image/png, which isn't text."),
        (
            {"headers": {"Content-Type": "application/zip"}},
            "it's application/zip, which isn't text.",
        ),
        ({"body": b""}, "it holds no text."),
        ({"body": b"<html><script>x</script></html>"}, "it holds no text."),
        (
            {"body": b"no gzip", "headers": {"Content-Encoding": "gzip"}},
            "it's packed in a broken way.",
        ),
        ({"headers": {"Content-Encoding": "br"}}, "it's packed as 'br'."),
        ({"headers": {"Content-Encoding": "gzip, gzip"}}, "it's packed as 'gzip, gzip'."),
        ({"body": b"x" * 3_000_000}, "it's larger than 2 MiB."),
        (
            {"body": b"x", "headers": {"Content-Length": "9"}},
            "the connection failed (RemoteProtocolError).",
        ),
        ({"body": b"%PDF-1.7 nonsense"}, "it's a PDF that is broken or locked."),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cant_be_read_is_said_plainly(web, reply, expected):
    server = web.serve(**reply)
    limits = Limits(max_bytes=2 << 20, deadline_s=5, attempts=1)
    assert reason(web, server, limits=limits) == expected


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(web, status):
    replies = iter([web.Reply(status=status, headers={"Retry-After": "0"}), web.Reply(PAGE)])
    assert "Fact 1" in read(web, web.serve(lambda _asked: next(replies)))


def test_a_server_that_stays_broken_or_asks_for_a_long_wait_is_given_up(web):
    broken = web.serve(status=500, headers={"Retry-After": "0"})
    assert (reason(web, broken), len(broken.asked)) == ("HTTP 500.", 2)
    busy = web.serve(status=429, headers={"Retry-After": "86400"})
    assert (reason(web, busy), len(busy.asked)) == ("HTTP 429.", 1)


def test_a_page_of_one_byte_a_second_is_given_up_at_the_deadline(web):
    server = web.serve(body=itertools.repeat(b"x", 60), delay_s=1.0)
    started = time.perf_counter()
    assert reason(web, server, limits=Limits(deadline_s=0.5)) == "no answer within 0.5 s."
    assert time.perf_counter() - started < 30


def test_the_deadline_holds_for_all_redirects_together(web):
    def hop(asked):
        time.sleep(0.2)
        return web.Reply(status=302, headers={"Location": asked.path + "x"})

    limits = Limits(deadline_s=0.5, redirects=100)
    assert reason(web, web.serve(hop), limits=limits) == "no answer within 0.5 s."


def test_ten_gigabytes_in_ten_megabytes_cost_no_memory(web):
    packer = zlib.compressobj(wbits=31)
    head = packer.compress(b"") + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(10 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    sent: list[int] = []
    body = (sent.append(1) or block for _ in range(1024))
    server = web.serve(
        body=itertools.chain([head], body),
        headers={"Content-Type": "text/html", "Content-Encoding": "gzip"},
    )
    tracemalloc.start()
    said = reason(web, server, limits=Limits(max_bytes=2 << 20))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert said == "it's larger than 2 MiB."
    assert peak < 32 << 20
    assert len(sent) < 1024


def test_packed_pages_are_unpacked(web):
    headers = {"Content-Type": "text/html", "Content-Encoding": "gzip"}
    assert "Fact 1" in read(web, web.serve(body=gzip.compress(PAGE), headers=headers))


def test_a_page_that_keeps_its_parser_busy_is_given_up(web):
    attributes = " ".join(f"a{number}=1" for number in range(60_000))
    server = web.serve(body=f"<html><body><p {attributes}>x</p></body></html>".encode())
    assert reason(web, server, extract_s=1) == "its contents are broken, or take too long to read."


def test_the_process_that_parses_sees_no_key(web, monkeypatch, tmp_path):
    spy = tmp_path / "spy.py"
    spy.write_text(
        "import json, os; print(json.dumps({'title': '', 'text': ' '.join(os.environ)}))"
    )
    monkeypatch.setattr(extract, "__file__", str(spy))
    monkeypatch.setenv("SERPER_API_KEY", "k")
    seen = set(read(web, web.serve(body=PAGE)).split()[3:])
    assert "PATH" in seen
    assert seen <= {"[1/1]", "PATH", "LD_LIBRARY_PATH", "SYSTEMROOT", "LC_CTYPE"}


def test_a_served_pdf_is_read(web):
    pypdf = pytest.importorskip("pypdf", reason="pypdf reads PDFs: pip install pypdf")
    writer, file = pypdf.PdfWriter(), io.BytesIO()
    writer.add_blank_page(100, 100)
    writer.write(file)
    server = web.serve(body=file.getvalue(), headers={"Content-Type": "application/pdf"})
    assert reason(web, server) == "it holds no text."


def test_an_episode_that_is_ended_ends_the_reading_of_its_page(web):
    async def cancelled():
        server = web.serve(body=b"<p " + b" ".join(b"a%d=1" % n for n in range(60_000)) + b">")
        task = asyncio.create_task(FetchTool(guard=web.guard(server)).call(server.url))
        await asyncio.sleep(1.5)
        task.cancel()
        await asyncio.wait([task], timeout=5)
        return task.cancelled()

    assert asyncio.run(cancelled())


@pytest.mark.parametrize(
    "argument", ["", " ", "\x00", "\ud83d", "</fetch><answer>x", "x" * 100_000]
)
def test_every_argument_gets_a_text(argument):
    said = asyncio.run(FetchTool().call(argument))
    assert said == HOW or "can't be read" in said
    assert len(said) < 400


def test_it_is_a_tool_and_says_what_is_missing(monkeypatch):
    assert isinstance(FetchTool(), Tool)
    with pytest.raises(ConfigError, match="max_chars 10"):
        FetchTool(max_chars=10)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"mem1-rl\[web\]"):
        FetchTool()


def test_passages_end_where_lines_or_sentences_do():
    assert split("One. Two.\n\n Three.", size=9) == ["One. Two.", "Three."]
    assert split("One is. Two is.\nx", size=8) == ["One is.", "Two is.", "x"]
    assert split("x" * 20, size=8) == ["x" * 8, "x" * 8, "x" * 4]
    assert split(" \n ") == []


def test_passages_about_the_query_come_first_and_in_the_order_of_the_page():
    passages = ["a cat sat", "dogs bark", "nothing here", "a dog bites"]
    assert select(passages, query="dog!", max_chars=24) == [1, 3]
    assert select(passages, query="", max_chars=24) == [0, 1]
    assert select(passages, query="zebra", max_chars=24) == [0, 1]
    assert select([], query="dog", max_chars=24) == []
