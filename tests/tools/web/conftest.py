"""A real server on this machine that answers as told: well, badly, slowly, endlessly."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mem1.tools.web import Guard

HTML = {"Content-Type": "text/html; charset=utf-8"}


@dataclass
class Reply:
    body: bytes | Iterable[bytes] = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: dict(HTML))
    delay_s: float = 0.0
    """Before each part of the body."""


@dataclass
class Asked:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


Answer = Callable[[Asked], Reply]


class Server(ThreadingHTTPServer):
    """Keeps what it was asked."""

    request_queue_size = 64
    daemon_threads = True

    def __init__(self, answer: Answer, *, host: str, port: int) -> None:
        super().__init__((host, port), _Handler)
        self.answer = answer
        self.asked: list[Asked] = []
        self.url = f"http://{host}:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        asked = Asked(self.command, self.path, headers, body)
        self.server.asked.append(asked)
        reply = self.server.answer(asked)
        parts = [reply.body] if isinstance(reply.body, bytes) else reply.body
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.end_headers()
        try:
            for part in parts:
                time.sleep(reply.delay_s)
                self.wfile.write(part)
        except OSError:
            pass

    def do_POST(self):
        self.do_GET()

    def log_message(self, *_args):
        pass


class Web:
    """What the fixture `web` is: servers, and a guard that lets some of them be reached."""

    Reply = Reply

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def serve(
        self, answer: Answer | None = None, *, host: str = "127.0.0.1", port: int = 0, **reply
    ) -> Server:
        """A server that gives one reply, or a function's."""
        answer = answer or (lambda _asked: Reply(**reply))
        return self._stack.enter_context(_serving(Server(answer, host=host, port=port)))

    def guard(self, *servers: Server, hosts: dict[str, list[str]] | None = None) -> Guard:
        """Lets these servers be reached; knows these hosts and IPv4 addresses only."""

        async def resolve(host: str, port: int) -> list[str]:
            return (hosts or {}).get(host, [host] if host[0].isdigit() else [])

        places = {(str(server.server_address[0]), server.server_port) for server in servers}
        return Guard(resolve=resolve, allow=frozenset(places))


@contextmanager
def _serving(server: Server) -> Iterator[Server]:
    threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def web() -> Iterator[Web]:
    with ExitStack() as stack:
        yield Web(stack)
