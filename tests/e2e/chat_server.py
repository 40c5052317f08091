"""A chat-completions server that plays a fixed agent: it searches once, then it answers."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SEARCH = "<think>I know nothing yet.</think>\n<search>capital of France</search>"
ANSWER = "<think>Paris is the capital of France.</think>\n<answer>Paris</answer>"


def search_then_answer(messages: list[dict[str, str]]) -> str:
    return ANSWER if len(messages) > 1 else SEARCH


class ChatServer:
    """What a running server was asked."""

    def __init__(self) -> None:
        self.url = ""
        self.chats: list[list[dict[str, str]]] = []
        self.down = False


@contextmanager
def chat_server(
    reply: Callable[[list[dict[str, str]]], str] = search_then_answer,
) -> Iterator[ChatServer]:
    state = ChatServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send({"data": [{"id": "parrot", "max_model_len": 8192}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if state.down:
                self.send({"error": {"message": "out of parrots"}}, status=400)
                return
            state.chats.append(body["messages"])
            message = {"role": "assistant", "content": reply(body["messages"])}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            self.send({"id": "1", "object": "chat.completion", "choices": [choice]})

        def send(self, content: object, *, status: int = 200) -> None:
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
