"""A real server on this machine that answers as told: well, badly, slowly, endlessly."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from mem1.tools.web import Guard


@dataclass
class Reply:
    body: bytes | Iterable[bytes] = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    """Before each part of the body."""


@dataclass
class Asked:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Server(ThreadingHTTPServer):
    request_queue_size = 64
    daemon_threads = True

    def __init__(self, answer: Callable[[Asked], Reply], *, host: str) -> None:
        super().__init__((host, 0), _Handler)
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

    do_POST = do_GET

    def log_message(self, *_args):
        pass


@contextmanager
def serving(
    answer: Callable[[Asked], Reply] | Reply, *, host: str = "127.0.0.1"
) -> Iterator[Server]:
    always = answer if callable(answer) else lambda _asked: answer
    server = Server(always, host=host)
    threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def letting(*servers: Server, hosts: dict[str, list[str]] | None = None) -> Guard:
    """A guard that lets these servers be reached, and knows these hosts only."""

    async def resolve(host: str, port: int) -> list[str]:
        return (hosts or {}).get(host, [host] if host[0].isdigit() else [])

    reachable = {(str(server.server_address[0]), server.server_port) for server in servers}
    return Guard(resolve=resolve, allow=frozenset(reachable))
