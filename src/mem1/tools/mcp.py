"""MCP SERVERS -> TYPED TOOLS: the Model Context Protocol, over a command's pipes or a URL.

    "uvx mcp-server-time" | "https://example.org/mcp" -> McpServer -> [TypedTool]

One connection for a whole run. A command sees only the environment that the protocol's own client
passes on (PATH, HOME and the like): give it a key with  env KEY=… command.
"""

import asyncio
import importlib.util
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from mem1.errors import ConfigError, MissingExtraError, ToolError
from mem1.tools.toolbox import Schema

if TYPE_CHECKING:
    from mcp import Client

START_S, CALL_S = 30.0, 60.0
MAX_TEXT = 100_000
"""Characters of an answer."""
MAX_TOOLS = 1_000
"""Of a server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class McpTool:
    """A `TypedTool` of a server."""

    name: str
    description: str
    parameters: Schema
    server: "McpServer"

    async def run(self, arguments: Mapping[str, Any]) -> str:
        return await self.server.call(self.name, arguments)


class McpServer:
    """A connection to a server, as an async context manager.

    >>> async with McpServer("uvx mcp-server-time") as server:                    # doctest: +SKIP
    ...     box = Toolbox(server.tools)
    """

    def __init__(self, address: str, *, call_s: float = CALL_S, start_s: float = START_S) -> None:
        """Args: `address`, a command line or an http(s) URL; `call_s`, `start_s`, seconds that a
        call and the connection may take."""
        self.address = address
        self._call_s, self._start_s = call_s, start_s
        self._client: Client | None = None
        self._stop = asyncio.Event()
        self._holder: asyncio.Task[None] | None = None
        self.tools: Sequence[McpTool] = ()

    async def __aenter__(self) -> Self:
        """Connect and learn the tools.

        Raises: ConfigError if there's no such server, MissingExtraError without the package mcp.
        """
        if importlib.util.find_spec("mcp") is None:
            raise MissingExtraError("mcp", extra="mcp")
        connected: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._holder = asyncio.create_task(self._hold(connected))
        try:
            async with asyncio.timeout(self._start_s):
                await connected
        except TimeoutError as error:
            await self._end()
            raise ConfigError(
                f"MCP server {self.address!r} doesn't answer within {self._start_s:g} s"
            ) from error
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._stop.set()
        await self._end(wait_s=5.0)

    async def _end(self, *, wait_s: float = 0.0) -> None:
        if self._holder is None:
            return
        await asyncio.wait([self._holder], timeout=wait_s)
        self._holder.cancel()
        await asyncio.wait([self._holder], timeout=wait_s)

    async def _hold(self, connected: "asyncio.Future[None]") -> None:
        """Own the connection, which only the task that opened it may close."""
        from mcp import MCPError

        try:
            async with self._connection() as client:
                self.tools = await self._listed(client)
                self._client = client
                connected.set_result(None)
                await self._stop.wait()
        except (MCPError, OSError, ExceptionGroup, RuntimeError, ValueError) as error:
            if not connected.done():
                said = f"MCP server {self.address!r} doesn't answer: {_inner(error)}"
                connected.set_exception(ConfigError(said))
        finally:
            self._client = None

    async def _listed(self, client: "Client") -> list[McpTool]:
        """All tools, which a server may tell page by page."""
        tools: list[McpTool] = []
        cursor: str | None = None
        while len(tools) <= MAX_TOOLS:
            page = await client.list_tools(cursor=cursor)
            tools += [self._tool(tool) for tool in page.tools]
            cursor = page.next_cursor
            if cursor is None:
                return tools
        raise ConfigError(f"it has more than {MAX_TOOLS} tools")

    def _connection(self) -> "Client":
        from mcp import Client, StdioServerParameters

        if self.address.startswith(("http://", "https://")):
            return Client(self.address, read_timeout_seconds=self._call_s)
        command, *arguments = shlex.split(self.address) or [""]
        server = StdioServerParameters(command=command, args=arguments)
        return Client(server, read_timeout_seconds=self._call_s)

    def _tool(self, tool: Any) -> McpTool:
        return McpTool(
            name=tool.name,
            description=tool.description or "",
            parameters=tool.input_schema,
            server=self,
        )

    async def call(self, name: str, arguments: Mapping[str, Any]) -> str:
        """The text of an answer, cut to MAX_TEXT.

        Raises: ToolError if there's none; ValueError if the tool says that the call was wrong.
        """
        from mcp import MCPError

        if self._client is None:
            raise ToolError(f"MCP server {self.address!r} isn't connected")
        try:
            result = await self._client.call_tool(name, dict(arguments))
        except (MCPError, OSError, TimeoutError, RuntimeError) as error:
            raise ToolError(f"MCP server {self.address!r}, {name}: {error}") from error
        text = "\n".join(getattr(part, "text", f"[{part.type}]") for part in result.content)
        if result.is_error:
            raise ValueError(text[:MAX_TEXT])
        return text[:MAX_TEXT]


def _inner(error: BaseException) -> str:
    """What went wrong, out of the groups that task groups wrap it in."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"
