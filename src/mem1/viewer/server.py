"""A LIBRARY -> A WEB PAGE for one person: loopback or token, read-only.

    GET /            the page and its scripts, from a fixed table of names
    GET /api/PATH    library.load(PATH)

Who isn't asked by name (Host), or asks from another page (Origin), gets nothing: a web site that
the user visits can't read runs through the browser.
"""

import hmac
import ipaddress
import mimetypes
import socket
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import TYPE_CHECKING

import orjson

from mem1.errors import ConfigError, DataError
from mem1.viewer.library import Library

if TYPE_CHECKING:
    from fastapi import FastAPI, Request, Response

COOKIE = "mem1-token"
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


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def open_port(host: str, port: int) -> socket.socket:
    """A socket to serve at, which takes calls already. Args: `port`, 0 for a free one. Raises:
    ConfigError if it's taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
        found.listen()
    except OSError as error:
        found.close()
        raise ConfigError(f"can't serve at {host}:{port}: {error}: name another --port") from error
    return found


def serve(library: Library, *, at: socket.socket, token: str | None = None) -> None:
    """Serve until interrupted. Args: `token`, without which nobody is shown anything; needed
    wherever others can reach the socket."""
    import uvicorn

    host = at.getsockname()[0]
    if token is None and not is_loopback(host):
        raise ConfigError(f"{host} can be reached by others: give a token")
    app = make_app(library, token=token, any_host=not is_loopback(host))
    config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False)
    uvicorn.Server(config).run(sockets=[at])


def make_app(library: Library, *, token: str | None = None, any_host: bool = False) -> "FastAPI":
    """The server's application. Args: `any_host`, the names of this machine aren't known, and the
    token alone tells who may see."""
    from fastapi import FastAPI, Request, Response

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    pages = static_files()

    @app.middleware("http")
    async def guard(
        request: Request, respond: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        refused = _refused(request, token=token, any_host=any_host)
        response = refused or await respond(request)
        response.headers.update(HEADERS)
        return response

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


def _refused(request: "Request", *, token: str | None, any_host: bool) -> "Response | None":
    """What a request gets that may not be answered, or that has just told the token."""
    from fastapi import Response
    from fastapi.responses import RedirectResponse

    def refuse(status: int, why: str) -> Response:
        return Response(f"{why}\n", status, media_type="text/plain")

    host = request.headers.get("host", "")
    origin = request.headers.get("origin")
    if request.method not in ("GET", "HEAD"):
        return refuse(405, "this page is read-only")
    if not any_host and not is_loopback(_without_port(host)):
        return refuse(403, "this page is asked by the address that mem1 view printed")
    if origin is not None and origin != f"{request.url.scheme}://{host}":
        return refuse(403, "this page answers no other page")
    if token is None:
        return None
    if _is(request.query_params.get("token"), token):
        response = RedirectResponse("/", 303)
        response.set_cookie(COOKIE, token, httponly=True, samesite="strict")
        return response
    if not _is(request.cookies.get(COOKIE), token):
        return refuse(401, "open the address that mem1 view printed: it holds a token")
    return None


def _is(given: str | None, token: str) -> bool:
    return given is not None and hmac.compare_digest(given.encode(), token.encode())


def _without_port(host: str) -> str:
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
