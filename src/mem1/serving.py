"""WHO IS ANSWERED by a server of ours: loopback or token, and no page of another site.

    request -> Guard.refused -> a refusal, or None: answer it
    app, socket -> run_server -> serves until interrupted

A Host that isn't this machine's own, or an Origin that isn't the server's, gets nothing: a web site
that the user visits can't reach a server through the browser, whatever its name resolves to.
"""

import hmac
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mem1.errors import ConfigError

if TYPE_CHECKING:
    from fastapi import FastAPI, Request, Response

COOKIE = "mem1-token"


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """Tells whom a server answers."""

    command: str
    """What was typed to start it; for the texts of refusals."""
    token: str | None = None
    """Who knows it is answered: as `Authorization: Bearer …`, as `?token=…`, or by the cookie that
    a browser gets for it. None: everybody who can reach the server."""
    any_host: bool = False
    """The names of this machine aren't known: the token alone tells who may ask."""

    def refused(self, request: "Request") -> "Response | None":
        """What a request gets that may not be answered, or that has just told the token."""
        from fastapi import Response

        def refuse(why: str) -> Response:
            return Response(f"{why}\n", 403, media_type="text/plain")

        host = request.headers.get("host", "")
        origin = request.headers.get("origin")
        if not self.any_host and not is_loopback(_without_port(host)):
            return refuse(f"use the address that {self.command} printed")
        if origin is not None and origin != f"{request.url.scheme}://{host}":
            return refuse("pages of others get no answer")
        return self._without_token(request)

    def _without_token(self, request: "Request") -> "Response | None":
        from fastapi import Response
        from fastapi.responses import RedirectResponse

        if self.token is None:
            return None
        if _is(request.query_params.get("token"), self.token):
            if request.method not in ("GET", "HEAD"):
                return None
            response = RedirectResponse("/", 303)
            response.set_cookie(COOKIE, self.token, httponly=True, samesite="strict")
            return response
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and _is(given.strip(), self.token):
            return None
        if _is(request.cookies.get(COOKIE), self.token):
            return None
        why = f"a token is needed: it's in the address that {self.command} printed\n"
        return Response(why, 401, {"WWW-Authenticate": "Bearer"}, media_type="text/plain")


def install(guard: Guard, app: "FastAPI", *, headers: Mapping[str, str]) -> None:
    """Let the guard see each request before the app does; every answer gets these headers."""
    from fastapi import Request, Response

    @app.middleware("http")
    async def watch(
        request: Request, respond: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        response = guard.refused(request) or await respond(request)
        response.headers.update(headers)
        return response


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


def guard_of(at: socket.socket, *, command: str, token: str | None) -> Guard:
    """The guard of a server at a socket. Raises: ConfigError where others can reach it and there's
    no token."""
    host = at.getsockname()[0]
    if not token and not is_loopback(host):
        raise ConfigError(f"{host} can be reached by others: give a token")
    return Guard(command=command, token=token or None, any_host=not is_loopback(host))


def run_server(app: "FastAPI", *, at: socket.socket) -> None:
    """Serve until interrupted."""
    import uvicorn

    config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False)
    uvicorn.Server(config).run(sockets=[at])


def _is(given: str | None, token: str) -> bool:
    # A header may hold half a surrogate pair.
    return given is not None and hmac.compare_digest(
        given.encode("utf-8", "replace"), token.encode("utf-8", "replace")
    )


def _without_port(host: str) -> str:
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
