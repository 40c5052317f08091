"""Real HTTP servers on loopback that answer as told, well or badly.

serve(answer) -> Server(url, requests);   answer(path, body) -> Answer
"""

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from mem1.chat import ByteRenderer

MODEL = "parrot"
LISTED = {"id": MODEL, "owned_by": "vllm", "max_model_len": 512}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    content: object = None
    """Sent as it is if bytes, else as JSON."""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    cut: bool = False
    """Close the connection in the middle of the body."""


@dataclass(slots=True)
class Server:
    """What a running server was asked, in order: bodies of posts, headers of all."""

    url: str
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0


Behaviour = Callable[[str, dict[str, Any]], Answer]


@contextmanager
def serve(behaviour: Behaviour) -> Iterator[Server]:
    """Run a server that answers as `behaviour(path, body)` says."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.answer({})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            server.bodies.append(body)
            self.answer(body)

        def answer(self, body: dict[str, Any]) -> None:
            server.headers.append(dict(self.headers))
            with lock:
                server.in_flight += 1
                server.most_in_flight = max(server.most_in_flight, server.in_flight)
                answer = behaviour(self.path.removeprefix("/v1"), body)
            time.sleep(answer.delay_s)
            with lock:
                server.in_flight -= 1
            self.send(answer)

        def send(self, answer: Answer) -> None:
            content = answer.content
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(answer.status)
            self.send_header("Content-Length", str(len(data) * (2 if answer.cut else 1)))
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)
            self.close_connection = answer.cut

        def log_message(self, format: str, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    server = Server(url=f"http://127.0.0.1:{http.server_port}/v1")
    thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()


class EndingBytes(ByteRenderer):
    """The byte tokenizer with an end-of-sequence token that no text encodes to."""

    END = 256

    def decode(self, token_ids: Iterable[int]) -> str:
        return "".join("<|end|>" if i == self.END else chr(i) for i in token_ids)


def vllm(reply: str, *, end: tuple[int, ...] = (), **changes: object) -> Behaviour:
    """A server like vLLM with a byte tokenizer: stops, counts, tells ids and log-probabilities.

    Args: `end`, ids sampled after the reply's text; `changes`, to the choice that it answers.
    """

    def behaviour(path: str, body: dict[str, Any]) -> Answer:
        if path == "/models":
            return Answer(content={"data": [LISTED]})
        stops = [reply.find(stop) + len(stop) for stop in body.get("stop", ()) if stop in reply]
        ids = (*reply[: min(stops, default=len(reply))].encode(), *(() if stops else end))
        whole, ids = len(ids), ids[: body["max_tokens"]]
        text = "".join(chr(i) for i in ids if i < 256)
        choice: dict[str, Any] = {
            "text": text,
            "finish_reason": "length" if len(ids) < whole else "stop",
        }
        if body.get("return_token_ids"):
            tokens = [f"token_id:{i}" for i in ids]
            choice["token_ids"] = list(ids)
            choice["prompt_token_ids"] = body["prompt"]
            choice["logprobs"] = {"tokens": tokens, "token_logprobs": [-0.5] * len(ids)}
        usage = {"completion_tokens": len(ids)}
        return Answer(content={"choices": [choice | changes], "usage": usage})

    return behaviour


def plain(text: str | None, finish_reason: str | None = "stop") -> Behaviour:
    """A server that tells nothing but text, by either path."""

    def behaviour(path: str, _body: dict[str, Any]) -> Answer:
        if path == "/models":
            return Answer(content={"data": [{"id": MODEL}]})
        said = {"message": {"content": text}} if "chat" in path else {"text": text}
        return Answer(content={"choices": [{**said, "finish_reason": finish_reason}]})

    return behaviour


def refusing(rule: Callable[[dict[str, Any]], bool], then: Behaviour) -> Behaviour:
    """Answers 400 to bodies that fit the rule."""
    return lambda path, body: (
        Answer(status=400, content={"error": {"message": "I refuse"}})
        if rule(body)
        else then(path, body)
    )


def first(*answers: Answer, then: Behaviour) -> Behaviour:
    """Gives these answers to the first requests, then behaves."""
    left = list(answers)
    return lambda path, body: left.pop(0) if left else then(path, body)


def always(answer: Answer) -> Behaviour:
    return lambda _path, _body: answer
