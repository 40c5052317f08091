"""WHERE A PAGE MAY COME FROM: the public web, and nothing else.

    URL a model wrote -> Guard.check -> Guard.addresses -> PinnedTransport -> the address checked

A name is resolved once for each request, all its addresses must be public, and the connection goes
to one of them: a name that resolves to something else a moment later changes nothing.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import httpx2

from mem1.errors import ToolError

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Host, port -> its IP addresses. Raises OSError if there's no such host."""

MAX_URL = 2_000
"""Characters."""

_NO_V4 = tuple(
    map(
        ip_network,
        (
            *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
            *("172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16"),
            *("198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
            "168.63.129.16/32",
        ),
    )
)
"""IANA's special-purpose IPv4 addresses, and the public one at which Azure serves secrets."""
_V6 = ip_network("2000::/3")
_NO_V6 = tuple(map(ip_network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")))
"""What isn't public inside the public IPv6 range: tunnels, which hide an IPv4 address, too."""
_NAT64 = ip_network("64:ff9b::/96")
"""Its last 32 bits are the IPv4 address that is meant."""


class PageError(ToolError):
    """A page can't be had. The text completes "it can't be read: …" and is fit for the model."""


NOT_PUBLIC = "it isn't on the public web"


async def system_resolve(host: str, port: int) -> Sequence[str]:
    """The addresses that the operating system knows, its preferred one first."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public internet, by IANA's registries."""
    try:
        ip = ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, IPv6Address) and ip in _NAT64:
        ip = IPv4Address(int(ip) & 0xFFFFFFFF)
    if isinstance(ip, IPv4Address):
        return not any(ip in network for network in _NO_V4)
    return ip in _V6 and not any(ip in network for network in _NO_V6)


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """The rules for addresses that a model chose."""

    resolve: Resolve = system_resolve
    ports: frozenset[int] = frozenset({80, 443})
    allow: frozenset[tuple[str, int]] = frozenset()
    """Addresses and ports that may be reached though they are not public: a test's own server."""

    def check(self, url: str) -> httpx2.URL:
        """The URL, parsed, its host not looked up yet. Raises: PageError if it can't be one."""
        try:
            parsed = httpx2.URL(url if len(url) <= MAX_URL else "")
        except (httpx2.InvalidURL, ValueError):
            raise PageError("that isn't an address of the web") from None
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise PageError("an address of the web starts with http:// or https://")
        if parsed.userinfo:
            raise PageError("its address holds a user name")
        return parsed

    async def addresses(self, url: httpx2.URL) -> list[str]:
        """Where to connect. Raises: PageError for no address, or if one isn't public."""
        port = _port(url)
        try:
            found = await self.resolve(url.raw_host.decode("ascii").strip("[]"), port)
        except (OSError, UnicodeError):
            found = []
        if not found:
            raise PageError("there's no such host")
        for address in found:
            public = is_public(address) and port in self.ports
            if not public and (address, port) not in self.allow:
                raise PageError(NOT_PUBLIC)
        return list(found)


class PinnedTransport(httpx2.AsyncBaseTransport):
    """Connects to addresses that the guard has checked, and to no other; uses no proxy."""

    def __init__(self, guard: Guard, *, inner: httpx2.AsyncBaseTransport) -> None:
        self._guard, self._inner = guard, inner

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        url = request.url
        failure: httpx2.ConnectError | None = None
        for address in (await self._guard.addresses(url))[:3]:
            # The Host header and the name in the certificate stay those of the URL.
            pinned = httpx2.Request(
                request.method,
                url.copy_with(host=address),
                headers=request.headers,
                stream=request.stream,
                extensions={**request.extensions, "sni_hostname": url.raw_host.decode("ascii")},
            )
            try:
                return await self._inner.handle_async_request(pinned)
            except httpx2.ConnectError as error:
                failure = error
        assert failure is not None, "a host has an address"
        raise failure

    async def aclose(self) -> None:
        await self._inner.aclose()


def _port(url: httpx2.URL) -> int:
    return url.port or (443 if url.scheme == "https" else 80)
