"""A LIBRARY -> A WEB PAGE for one person: loopback or token, read-only.

    GET /            the page and its scripts, from a fixed table of names
    GET /api/PATH    library.load(PATH)

Who isn't asked by name (Host), or asks from another page (Origin), gets nothing: a web site that
the user visits can't read runs through the browser.
"""

import mimetypes
import socket
from importlib.resources import files
from typing import TYPE_CHECKING

import orjson

from mem1.errors import DataError
from mem1.serving import Guard, guard_of, install, run_server
from mem1.viewer.library import Library

if TYPE_CHECKING:
    from fastapi import FastAPI


COMMAND = "mem1 view"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
INDEX = "index.html"


def static_files() -> dict[str, bytes]:
    """The page's files by name."""
    folder = files("mem1.viewer") / "static"
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


def serve(library: Library, *, at: socket.socket, token: str | None = None) -> None:
    """Serve until interrupted. Args: `token`, without which nobody is shown anything; needed
    wherever others can reach the socket."""
    guard = guard_of(at, command=COMMAND, token=token)
    run_server(make_app(library, guard=guard), at=at)


def make_app(library: Library, *, guard: Guard | None = None) -> "FastAPI":
    """The server's application. Args: `guard`, None: whoever asks by a loopback name."""
    from fastapi import FastAPI, Request, Response

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    pages = static_files()

    install(guard or Guard(command=COMMAND), app, headers=HEADERS)

    @app.api_route("/api/{path:path}", methods=["GET", "HEAD"])
    async def answer(path: str, request: Request) -> Response:
        query = request.url.query
        try:
            found, status = library.load(f"{path}?{query}" if query else path), 200
        except DataError as error:
            found, status = {"error": str(error)}, 404
        return Response(orjson.dumps(found), status, media_type="application/json")

    @app.api_route("/{name:path}", methods=["GET", "HEAD"])
    async def page(name: str) -> Response:
        name = name or INDEX
        if name not in pages:
            return Response("nothing here\n", 404, media_type="text/plain")
        kind, _ = mimetypes.guess_type(name)
        return Response(pages[name], media_type=f"{kind}; charset=utf-8")

    return app
