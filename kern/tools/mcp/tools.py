"""`MCPTools`: the tools of an MCP server, for the `tools` of an agent or a team."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import PurePath
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self
from urllib.parse import urlsplit

from kern._numbers import check_seconds, check_whole
from kern._secrets import Masked
from kern._sync.loops import LoopLocal
from kern.errors import MissingExtraError, UsageError
from kern.messages import Media
from kern.tools.function import Function
from kern.tools.mcp.connection import Connections
from kern.tools.mcp.names import shown_names
from kern.tools.mcp.result import value_of
from kern.tools.mcp.server import Endpoint, Program, Server
from kern.tools.toolkit import Toolkit, ToolSource

if TYPE_CHECKING:
    from mcp.types import Tool

MAX_ANSWER_BYTES = 256 * 1024 * 1024

Transport = Literal["stdio", "streamable-http"]


class MCPTools(ToolSource):
    """The tools of an MCP server.

        tools = MCPTools(command="uvx mcp-server-git")
        agent = Agent(tools=[tools])

    Kern connects to the server when a run first needs it, once per event loop, and all runs share the
    connection. It is closed with the event loop, or when this object is garbage-collected. To control that
    yourself, and to learn before any run that a server is not available, write
    `async with MCPTools(...) as tools:`.

    Calls run concurrently. Cancelling a run cancels its call at the server; the connection stays. If the
    connection is lost, the calls in progress fail, and the next call connects again. If a server over HTTP
    has forgotten the session and rejects a call unread, the call is repeated in a new session.

    A tool that cannot be used (without a name, with the name of another, after the first 2,000) is left out
    with a warning. A part of a result that cannot be read becomes a text that says so.

    A process gets a few harmless environment variables (PATH, HOME, ...) and `env`. Its standard error goes
    to that of this process.

    The model sees the server's names for its tools, converted to the characters and the length that providers
    accept (`[A-Za-z0-9_-]`, at most 64). Names that would become equal end in a hash of the original.

    Args:
        command: The program of a server that uses standard input and output: a command line (no shell
            interprets it), or a list of the program and its arguments. Pass either `command` or `url`.
        url: The address of a running server.
        transport: "stdio" for a command, "streamable-http" for a url; None: the matching one.
        env: Environment variables for the command.
        headers: HTTP headers for the url, such as Authorization.
        include_tools: Only these tools, by the server's names.
        exclude_tools: All but these tools, by the server's names.
        requires_confirmation_tools: Tools whose calls a person has to approve, by the server's names.
        stop_after_tool_call_tools: Tools that end the run, by the server's names.
        show_result_tools: Tools whose results are shown to the user, by the server's names.
        tool_name_prefix: A prefix for the tools' names, joined by an underscore: for two servers whose tools
            have equal names.
        timeout_seconds: How long a call may take.
        connect_timeout_seconds: How long connecting may take, including the start of the program.
        max_answer_bytes: The longest message from the server at a url, in bytes; None: any length.
        name: The server's name in errors; by default the name of the program or host.

    Raises:
        MissingExtraError: The package `mcp` is not installed.
        UsageError: Not exactly one of command and url is given, or an option does not fit it.
    """

    def __init__(
        self,
        command: str | Sequence[str] | None = None,
        *,
        url: str | None = None,
        transport: Transport | None = None,
        env: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        include_tools: Sequence[str] | None = None,
        exclude_tools: Sequence[str] | None = None,
        requires_confirmation_tools: Sequence[str] = (),
        stop_after_tool_call_tools: Sequence[str] = (),
        show_result_tools: Sequence[str] = (),
        tool_name_prefix: str | None = None,
        timeout_seconds: float = 60.0,
        connect_timeout_seconds: float = 60.0,
        max_answer_bytes: int | None = MAX_ANSWER_BYTES,
        name: str | None = None,
    ) -> None:
        if find_spec("mcp") is None:
            raise MissingExtraError("mcp", "mcp")
        for keyword, seconds in (
            ("timeout_seconds", timeout_seconds),
            ("connect_timeout_seconds", connect_timeout_seconds),
        ):
            check_seconds(f"MCPTools: {keyword}", seconds)
        if max_answer_bytes is not None:
            check_whole("MCPTools: max_answer_bytes", max_answer_bytes, 1)
        if command is not None and url is None:
            server = _program(command, transport, env, headers, name)
        elif url is not None and command is None:
            server = _endpoint(url, transport, env, headers, name, connect_timeout_seconds, max_answer_bytes)
        else:
            raise UsageError("MCPTools needs either a command or a url")
        self.name: str = server.name
        self.timeout_seconds = timeout_seconds
        self.tool_name_prefix = tool_name_prefix
        self._include = include_tools
        self._exclude = exclude_tools
        self._confirmed = requires_confirmation_tools
        self._stopping = stop_after_tool_call_tools
        self._showing = show_result_tools
        self._server = server
        self._connect_timeout = connect_timeout_seconds
        self._start()

    def _start(self) -> None:
        # Nothing here refers to this object, so that its connections are closed when it is dropped.
        make = partial(Connections, self._server, self._connect_timeout)
        self._connections = LoopLocal(make, Connections.aclose)
        self._known: tuple[Sequence[Tool], Toolkit] | None = None

    def __copy__(self) -> Self:
        """The same object: copies of an agent share its connections."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """The same object."""
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without connections: another process opens its own."""
        return {k: v for k, v in vars(self).items() if k not in ("_connections", "_known")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._start()

    async def load(self) -> Toolkit:
        """The server's tools; connects if necessary.

        Raises:
            ToolError: The server is not available.
            UsageError: The server has no tool with a name that was passed.
        """
        tools = await self._connections.get().ask(lambda connection: connection.tools(self.timeout_seconds))
        if self._known is None or (self._known[0] is not tools and self._known[0] != tools):
            self._known = (tools, self._toolkit(tools))
        return self._known[1]

    async def aclose(self) -> None:
        """Close the connection of this event loop; the next call connects again."""
        await self._connections.aclose()

    async def __aenter__(self) -> Self:
        try:
            await self.load()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"MCPTools(name={self.name!r})"

    def _toolkit(self, tools: Sequence[Tool]) -> Toolkit:
        shown = shown_names((tool.name for tool in tools), self.tool_name_prefix)

        def these(names: Sequence[str]) -> list[str]:  # an unknown name stays: Toolkit reports it
            return [shown.get(name, name) for name in names]

        return Toolkit(
            self.name,
            [self._function(tool, shown[tool.name]) for tool in tools],
            include_tools=None if self._include is None else these(self._include),
            exclude_tools=None if self._exclude is None else these(self._exclude),
            requires_confirmation_tools=these(self._confirmed),
            stop_after_tool_call_tools=these(self._stopping),
            show_result_tools=these(self._showing),
        )

    def _function(self, tool: Tool, name: str) -> Function:
        return Function(
            _calling(self._connections, tool.name, self.timeout_seconds),
            name=name,
            description=tool.description or tool.title or "",
            # Some servers omit "properties" for a tool without parameters; OpenAI requires it.
            parameters={"properties": {}, **tool.input_schema},
        )


def _calling(
    connections: LoopLocal[Connections], tool: str, seconds: float
) -> Callable[..., Coroutine[Any, Any, list[str | Media] | str]]:
    """A function that calls a tool of the server, which checks the arguments itself."""

    async def call(**arguments: Any) -> list[str | Media] | str:
        result = await connections.get().ask(lambda connection: connection.call(tool, arguments, seconds))
        return value_of(result, tool)

    call.__name__ = call.__qualname__ = tool
    return call


def _program(
    command: str | Sequence[str],
    transport: Transport | None,
    env: Mapping[str, str] | None,
    headers: Mapping[str, str] | None,
    name: str | None,
) -> Server:
    if transport not in (None, "stdio"):
        raise UsageError(f"MCPTools: a command needs transport='stdio', not {transport!r}")
    if headers is not None:
        raise UsageError("MCPTools: headers apply to a url only; for a command pass env")
    parts = tuple(shlex.split(command)) if isinstance(command, str) else tuple(command)
    if not parts:
        raise UsageError("MCPTools: the command is empty")
    return Program(name or PurePath(parts[0]).name, parts, _masked(env))


def _endpoint(
    url: str,
    transport: Transport | None,
    env: Mapping[str, str] | None,
    headers: Mapping[str, str] | None,
    name: str | None,
    connect_seconds: float,
    max_answer_bytes: int | None,
) -> Server:
    if transport not in (None, "streamable-http"):
        raise UsageError(f"MCPTools: a url needs transport='streamable-http', not {transport!r}")
    if env is not None:
        raise UsageError("MCPTools: env applies to a command only; for a url pass headers")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"MCPTools: the url is not an http or https address: {parts.hostname or url!r}")
    return Endpoint(name or parts.hostname, url, _masked(headers), connect_seconds, max_answer_bytes)


def _masked(given: Mapping[str, str] | None) -> dict[str, str]:
    return {name: Masked(value) for name, value in (given or {}).items()}
