"""Only the public web is reached: by address, by name, by redirect, and by a name that changes."""

import asyncio
import socket
import sys
import threading

import pytest

from mem1.tools.web import FetchTool, Guard, PageError
from mem1.tools.web.guard import is_public, system_resolve

CONNECTIONS: list[tuple] = []
WATCHING = threading.Event()


def _watch(event: str, arguments: tuple) -> None:
    if WATCHING.is_set() and event == "socket.connect":
        CONNECTIONS.append(arguments[1])


sys.addaudithook(_watch)


@pytest.fixture
def connections():
    """Every connection that this process tries, at the level of sockets."""
    CONNECTIONS.clear()
    WATCHING.set()
    yield CONNECTIONS
    WATCHING.clear()


NOT_PUBLIC = [
    *("0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.100.100.200"),
    *("127.0.0.1", "127.255.255.254", "169.254.0.1", "169.254.169.254", "172.16.0.1"),
    *("172.31.255.255", "192.0.0.8", "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.0.1"),
    *("192.168.255.255", "198.18.0.1", "198.19.255.255", "198.51.100.7", "203.0.113.9"),
    *("224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255", "168.63.129.16"),
    *("::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:8.8.8.8"),
    *("64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "100::1", "2001::1"),
    *("2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:10::1", "2001:db8::1", "2002:7f00:1::"),
    *("2002:c0a8:1::1", "3fff::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fdff::1", "fe80::1"),
    *("fe80::1%eth0", "fec0::1", "feff::1", "ff02::1", "ff0e::1"),
]
PUBLIC = [
    "8.8.8.8",
    "93.184.216.34",
    "172.32.0.1",
    "100.128.0.1",
    "2606:4700::1111",
    "64:ff9b::808:808",
]
SPELLINGS = [
    *("127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "017700000001"),
    *("0", "localhost", "LOCALHOST", "localhost.", "①②⑦.⓪.⓪.①", "[::1]", "[::ffff:127.0.0.1]"),
    *("[::ffff:7f00:1]", "[0:0:0:0:0:0:0:1]", "169.254.169.254", "2852039166", "[fe80::1]"),
]


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_an_address_that_isnt_public_is_refused_before_any_connection(address, connections):
    async def resolve(host: str, port: int) -> list[str]:
        return ["8.8.8.8", address]  # one of several is enough

    assert not is_public(address)
    said = asyncio.run(FetchTool(guard=Guard(resolve=resolve)).call("http://name.example/"))
    assert said == "http://name.example/ can't be read: it isn't on the public web."
    assert connections == []


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_public(address):
    assert is_public(address)


@pytest.mark.parametrize("host", SPELLINGS)
def test_no_spelling_of_a_private_address_is_connected_to(host, connections):
    said = asyncio.run(FetchTool().call(f"http://{host}/"))
    assert "can't be read: " in said
    assert connections == []


@pytest.mark.parametrize(
    "url",
    [
        *("file:///etc/passwd", "ftp://example.org/", "gopher://example.org/", "javascript:1"),
        *("data:text/html,x", "//example.org/", "example.org", "http:///x", "http://", "::"),
        *("http://user:secret@example.org/", "http://[::1", "http://\x00/"),
        "http://example.org/" + "a" * 3000,
    ],
)
def test_what_isnt_an_address_of_the_web_is_refused(url):
    with pytest.raises(PageError):
        Guard().check(url)


def test_only_the_ports_of_the_web_are_reached(connections):
    async def resolve(host: str, port: int) -> list[str]:
        return ["8.8.8.8"]

    guard = Guard(resolve=resolve)
    said = [asyncio.run(FetchTool(guard=guard).call(f"http://a.b:{p}/")) for p in (22, 6379, 8080)]
    assert [text.partition("can't be read: ")[2] for text in said] == [
        "it isn't on the public web."
    ] * 3
    assert "can't be read" in asyncio.run(FetchTool().call("http://8.8.8.8:99999/"))
    assert connections == []


def test_a_redirect_to_a_private_address_isnt_followed(web, connections):
    secret = web.serve(body=b"password", host="127.0.0.2")
    server = web.serve(status=302, headers={"Location": f"{secret.url}/"})
    said = asyncio.run(FetchTool(guard=web.guard(server)).call(server.url))
    assert said == f"{server.url} can't be read: it isn't on the public web."
    assert (connections, secret.asked) == ([("127.0.0.1", server.server_port)], [])


def test_a_redirect_is_followed_a_few_times_and_never_out_of_the_web(web):
    loop = web.serve(lambda asked: web.Reply(status=302, headers={"Location": asked.path + "x"}))
    assert "it redirects more than 5 times" in asyncio.run(
        FetchTool(guard=web.guard(loop)).call(loop.url)
    )
    assert len(loop.asked) == 6
    for target in ("file:///etc/passwd", "http://[", ""):
        server = web.serve(status=302, headers={"Location": target} if target else {})
        said = asyncio.run(FetchTool(guard=web.guard(server)).call(server.url))
        assert "can't be read: " in said
        assert len(server.asked) == 1


def test_a_resolver_that_changes_its_mind_is_asked_once_and_what_it_said_is_connected(
    web, connections
):
    server = web.serve(body=b"<p>harmless</p>")
    secret = web.serve(body=b"<p>password</p>", host="127.0.0.2", port=server.server_port)
    answers = [["127.0.0.1"], ["127.0.0.2"], ["127.0.0.2"]]

    async def resolve(host: str, port: int) -> list[str]:
        return answers.pop(0)

    place = frozenset({("127.0.0.1", server.server_port)})
    tool = FetchTool(guard=Guard(resolve=resolve, allow=place))
    url = f"http://rebind.example:{server.server_port}/"
    assert "harmless" in asyncio.run(tool.call(url))
    assert connections == [("127.0.0.1", server.server_port)]
    assert server.asked[0].headers["host"] == f"rebind.example:{server.server_port}"
    assert "it isn't on the public web" in asyncio.run(tool.call(url))
    assert (len(connections), secret.asked) == (1, [])


def test_the_next_address_is_tried_where_one_is_down(web):
    server = web.serve(body=b"<p>here</p>")
    down = ("127.0.0.3", server.server_port)
    guard = web.guard(server, hosts={"two.example": ["127.0.0.3", "127.0.0.1"]})
    guard = Guard(resolve=guard.resolve, allow=guard.allow | {down})
    said = asyncio.run(FetchTool(guard=guard).call(f"http://two.example:{server.server_port}/"))
    assert "here" in said


def test_no_proxy_of_the_environment_is_used(web, monkeypatch):
    proxy = web.serve(body=b"<p>by proxy</p>")
    server = web.serve(body=b"<p>straight</p>")
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, proxy.url)
    assert "straight" in asyncio.run(FetchTool(guard=web.guard(server)).call(server.url))
    assert proxy.asked == []


def test_the_system_knows_this_machine():
    assert "127.0.0.1" in asyncio.run(system_resolve("127.0.0.1", 80))
    with pytest.raises(socket.gaierror):
        asyncio.run(system_resolve("no-such-host.invalid", 80))
