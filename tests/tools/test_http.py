"""Retrieval over HTTP, against a real server on this machine that behaves well or badly."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mem1.errors import ConfigError, ToolError
from mem1.tools import HTTPRetriever, Passage

PARIS = {"id": "7", "contents": '"Paris"\nThe capital of France.'}
SCORED = {"result": [[{"document": PARIS, "score": 2.5}, {"document": PARIS, "score": 1.5}]]}


class Server(ThreadingHTTPServer):
    """Answers each request with the next of its replies (status, headers, body); keeps bodies."""

    request_queue_size = 64

    def __init__(self, replies: list[tuple[int, dict[str, str], bytes]], *, delay_s: float) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.replies, self.delay_s = replies, delay_s
        self.asked: list[tuple[str, dict]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, json.loads(body)))
        status, headers, reply = self.server.replies[
            min(len(self.server.asked), len(self.server.replies)) - 1
        ]
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(reply))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        try:
            for byte in reply if self.server.delay_s else [reply]:
                time.sleep(self.server.delay_s)
                self.wfile.write(bytes([byte]) if isinstance(byte, int) else byte)
        except OSError:
            pass

    def log_message(self, *_args):
        pass


@contextmanager
def serving(*replies, delay_s: float = 0) -> Iterator[Server]:
    server = Server([as_reply(reply) for reply in replies], delay_s=delay_s)
    thread = threading.Thread(target=server.serve_forever, args=[0.01], daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def as_reply(reply):
    return reply if isinstance(reply, tuple) else (200, {}, json.dumps(reply).encode())


def search(url, *, top_k=2, **settings) -> list[Passage]:
    return asyncio.run(HTTPRetriever(url, **settings).search("France", top_k=top_k))


def test_one_query_is_sent_and_scored_passages_come_back():
    with serving(SCORED) as server:
        found = search(server.url)
    paris = Passage(id="7", title="Paris", text="The capital of France.", score=2.5)
    assert (found[0], [passage.score for passage in found]) == (paris, [2.5, 1.5])
    assert server.asked == [
        ("/retrieve", {"queries": ["France"], "topk": 2, "return_scores": True})
    ]


def test_documents_without_scores_are_understood():
    with serving({"result": [[PARIS, {"title": "Rome", "text": "In Italy."}]]}) as server:
        found = search(f"{server.url}/retrieve")
    assert [(passage.id, passage.title) for passage in found] == [("7", "Paris"), ("", "Rome")]


def test_finding_nothing_is_no_error_and_more_than_asked_for_is_cut():
    with serving({"result": [[]]}) as server:
        assert search(server.url) == []
    with serving(SCORED) as server:
        assert len(search(server.url, top_k=1)) == 1


def test_one_retriever_serves_several_event_loops_and_many_searches_at_once():
    async def many(retriever):
        return await asyncio.gather(*(retriever.search("x", top_k=2) for _ in range(16)))

    with serving(SCORED) as server:
        retriever = HTTPRetriever(server.url)
        found = asyncio.run(many(retriever)) + asyncio.run(many(retriever))
    assert [len(passages) for passages in found] == [2] * 32


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again_after_the_time_it_names(status):
    with serving((status, {"Retry-After": "0"}, b"busy"), SCORED) as server:
        assert len(search(server.url)) == 2
    assert len(server.asked) == 2


def test_a_server_cannot_ask_for_a_longer_wait_than_the_timeout():
    with serving((503, {"Retry-After": "86400"}, b""), SCORED) as server:
        assert len(search(server.url, timeout_s=0.5)) == 2


def test_a_server_that_stays_busy_is_a_tool_error():
    with serving((503, {"Retry-After": "0"}, b"busy")) as server:
        with pytest.raises(ToolError, match="503"):
            search(server.url, attempts=3)
        assert len(server.asked) == 3


def test_a_refusal_is_not_repeated():
    with serving((401, {}, b"who are you?")) as server:
        with pytest.raises(ToolError, match="401"):
            search(server.url)
        assert len(server.asked) == 1


def test_a_server_that_is_down_is_a_tool_error():
    with serving() as server:
        url = server.url
    with pytest.raises(ToolError, match="ConnectError"):
        search(url, attempts=1)


def test_a_server_that_drips_is_given_up_after_the_timeout():
    with serving((200, {}, b" " * 100), delay_s=0.05) as server:
        started = time.perf_counter()
        with pytest.raises(ToolError, match="Timeout"):
            search(server.url, timeout_s=0.3, attempts=1)
        assert time.perf_counter() - started < 4


@pytest.mark.parametrize(
    "reply",
    [
        (200, {"Content-Type": "text/html"}, b"<html>Welcome</html>"),
        (200, {}, b""),
        (200, {"Content-Encoding": "gzip"}, b"no gzip"),
        (200, {"Content-Length": "99999"}, b'{"result": [['),
        {"result": []},
        {"result": {"a": 1}},
        {"result": [["text"]]},
        {"result": [[{"document": {"id": "1"}}]]},
        {"result": [[{"document": PARIS, "score": "high"}]]},
        {"error": "index not loaded"},
        ["result"],
        None,
    ],
    ids=str,
)
def test_an_answer_that_holds_no_passages_is_a_tool_error_never_text(reply: object):
    with serving(reply) as server, pytest.raises(ToolError, match=server.url):
        search(server.url, timeout_s=1.0, attempts=1)


def test_an_url_without_scheme_is_refused():
    with pytest.raises(ConfigError, match="http://"):
        HTTPRetriever("localhost:8000")
