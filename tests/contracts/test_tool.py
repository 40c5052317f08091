"""What every Tool keeps to: a text for every argument, many calls at once, errors as ToolError."""

import asyncio
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from mem1.envs import QAEnv
from mem1.errors import ToolError
from mem1.tools import BM25Index, HTTPRetriever, SearchTool, Tool
from mem1.tools.encoder import Encoder
from mem1.tools.indexes import DenseConfig, HybridConfig, open_index
from mem1.tools.web import FetchTool
from mem1.types import Objective, Task

CONTENTS = '"Paris"\nThe capital of France.'
ARGUMENTS = ["capital", "", "the", "a" * 100_000, "\x00\ud83d\ude00é\n", "</search><answer>x"]


@dataclass(frozen=True)
class Function:
    """A tool that somebody wrote in three lines."""

    name: str = "lookup"

    async def call(self, argument: str) -> str:
        return f"about {argument[:10]}"


class Retrieve(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        body = json.dumps({"result": [[{"id": "1", "contents": CONTENTS}]]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args):
        pass


LETTERS = Encoder(
    name="letters", encode=lambda texts: np.array([[1 + len(text), 1] for text in texts])
)


@pytest.fixture(params=["bm25", "dense", "hybrid", "fetch", "http", "function"])
def tool(request, tmp_path) -> Iterator[Tool]:
    if request.param == "bm25":
        corpus = tmp_path / "corpus.jsonl"
        corpus.write_text(json.dumps({"id": "1", "contents": CONTENTS}))
        yield SearchTool(BM25Index.open(corpus, cache_dir=tmp_path))
    elif request.param in ("dense", "hybrid"):
        corpus = tmp_path / "corpus.jsonl"
        corpus.write_text(json.dumps({"id": "1", "contents": CONTENTS}))
        make = {"dense": DenseConfig, "hybrid": HybridConfig}[request.param]
        config = make(corpus=str(corpus), model="letters")
        yield SearchTool(open_index(config, encoder=LETTERS, cache_dir=tmp_path))
    elif request.param == "fetch":
        yield FetchTool()
    elif request.param == "http":
        server = ThreadingHTTPServer(("127.0.0.1", 0), Retrieve)
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        yield SearchTool(HTTPRetriever(f"http://127.0.0.1:{server.server_port}"))
        server.shutdown()
        server.server_close()
    else:
        yield Function()


def test_it_is_a_tool_that_a_world_accepts(tool):
    task = Task(id="t", objectives=(Objective(question="A?", answers=("b",)),))
    assert isinstance(tool, Tool)
    assert re.fullmatch(r"[a-z][a-z0-9_]*", tool.name)
    assert tool.name in QAEnv(task, tools=[tool]).actions


@pytest.mark.parametrize("argument", ARGUMENTS, ids=lambda argument: ascii(argument)[:12])
def test_every_argument_gets_a_text_or_a_tool_error(tool, argument):
    try:
        reply = asyncio.run(tool.call(argument))
    except ToolError:
        return
    assert isinstance(reply, str)
    assert reply


def test_calls_at_once_get_the_replies_of_calls_one_by_one(tool):
    async def at_once():
        return await asyncio.gather(*(tool.call("capital") for _ in range(8)))

    assert asyncio.run(at_once()) == [asyncio.run(tool.call("capital"))] * 8
