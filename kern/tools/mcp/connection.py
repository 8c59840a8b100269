"""A connection to an MCP server, which a task of its own opens, holds and closes.

The package `mcp` uses task groups and cancel scopes, which belong to the task that entered them. If that were
the task of a run, cancelling the run would break the connection for all others. With a task of its own, calls
may come from any task, and their cancellation affects only them.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio
from pydantic import ValidationError

from kern._error_text import error_text
from kern._log import cleaned_logs, named
from kern.errors import ToolError, ToolTimeoutError
from kern.tools.mcp.http import SESSION_LOST
from kern.tools.mcp.incoming import Mender, mending
from kern.tools.mcp.server import Program, Server

if TYPE_CHECKING:
    from mcp import Client, MCPError
    from mcp.client import IncomingMessage
    from mcp.client.subscriptions import Subscription
    from mcp.types import CallToolResult, Tool

T = TypeVar("T")

log: Final = named("kern")

CLOSE_SECONDS = 3.0
"""How long closing may take. A process then has a few more seconds to exit before it is ended."""

SUBSCRIBE_SECONDS = 5.0
"""How long a server may take to confirm the subscription to changes of its tools."""

_MOST_PAGES = 1000
_MOST_FAULTS = 3


_PARTING_SECONDS = 0.5
"""How long the cancellation of a call may take to reach the server; if it takes longer, the connection
ends."""

_LIBRARIES = ("mcp", "httpx2", "httpcore2")
_LOGGERS = ("client",)  # the logger of `mcp.client.session`


class SessionLostError(ToolError):
    """The server has forgotten the session and rejected the request unread, so it can be repeated."""


class Connections:
    """The connection of one event loop to a server: opened on demand, and again after it was lost.

    Args:
        server: The server.
        connect_seconds: How long connecting may take, with the handshake and the first list of tools.
    """

    def __init__(self, server: Server, connect_seconds: float) -> None:
        self._server = server
        self._connect_seconds = connect_seconds
        self._current: Connection | None = None
        self._open: set[Connection] = set()

    async def get(self) -> Connection:
        """Return an open connection; concurrent callers share it.

        Raises:
            ToolError: The server cannot be reached.
        """
        connection = self._current
        if connection is None or not connection.usable:
            connection = self._current = Connection(self._server, self._connect_seconds)
            self._open = {other for other in self._open if not other.task.done()} | {connection}
        await connection.opened()
        return connection

    async def ask(self, what: Callable[[Connection], Awaitable[T]]) -> T:
        """Make a request; if the server has forgotten the session, repeat it on a new connection.

        Raises:
            ToolError: The server cannot be reached, or refuses the request.
        """
        try:
            return await what(await self.get())
        except SessionLostError:  # rejected unread: nothing is done twice
            return await what(await self.get())

    async def aclose(self) -> None:
        """Close all connections, and wait for it."""
        self._current = None
        for connection in list(self._open):
            await connection.aclose()


class Connection:
    """One connection, which begins to open at once.

    Args:
        server: The server.
        connect_seconds: How long connecting may take.
    """

    def __init__(self, server: Server, connect_seconds: float) -> None:
        self._server = server
        self._connect_seconds = connect_seconds
        self._scope = anyio.CancelScope(deadline=anyio.current_time() + connect_seconds)
        self._client: Client | None = None
        self._failure: BaseException | None = None
        self._opened = asyncio.Event()
        self._leave = asyncio.Event()
        self._retired = False
        self._requests = 0
        self._tools: Sequence[Tool] = ()
        self._tools_changed = False
        self._hears_changes = True
        self._listing = asyncio.Lock()
        # An empty context: the task outlives the run that opened it and must not keep its context alive.
        context = contextvars.Context()
        self.task: asyncio.Task[None] = asyncio.create_task(
            self._own(), name=f"kern-mcp-{server.name}", context=context
        )
        """The task that holds the connection."""

    @property
    def usable(self) -> bool:
        """Whether it is open or opening."""
        return not (self._retired or self._leave.is_set() or self.task.done())

    async def opened(self) -> None:
        """Wait until the connection is open.

        Raises:
            ToolError: It could not be opened.
        """
        await self._opened.wait()
        if self._client is None:
            why = self._server.clean(_reason(self._failure))
            hint = _ENDED if isinstance(self._server, Program) and "Connection closed" in why else ""
            raise ToolError(f"the MCP server {self._server.name} cannot be used: {why}{hint}")

    async def tools(self, seconds: float) -> Sequence[Tool]:
        """The server's tools; the same object while they do not change.

        Raises:
            ToolError: The server does not answer within `seconds`, or refuses.
        """
        async with self._listing:
            if self._tools_changed or not self._hears_changes:
                self._tools_changed = False  # before the request: a change during it counts
                try:
                    tools = await self._request(self._listed, seconds, "tools/list")
                except BaseException:
                    self._tools_changed = True
                    raise
                if tools != self._tools:
                    self._tools = tools
            return self._tools

    async def call(self, tool: str, arguments: dict[str, Any], seconds: float) -> CallToolResult:
        """Call a tool. If the call is cancelled or takes too long, the server is asked to cancel it.

        Raises:
            ToolTimeoutError: The call took longer than `seconds`.
            ToolError: The server refuses the call, or the connection is lost.
        """
        return await self._request(lambda client: client.call_tool(tool, arguments), seconds, tool)

    async def aclose(self) -> None:
        """Close the connection, and wait for it."""
        self._leave.set()
        if not self._opened.is_set():
            self._scope.cancel()
        await asyncio.wait([self.task])

    async def _request(self, make: Callable[[Client], Awaitable[T]], seconds: float, what: str) -> T:
        client = self._client
        if client is None:
            raise ToolError(f"the connection to the MCP server {self._server.name} is closed", tool=what)
        # In a task of its own: on cancellation the package waits until the server has taken the notice.
        request = asyncio.ensure_future(self._asked(make, client))
        try:
            done, _ = await asyncio.wait([request], timeout=seconds)
        except BaseException:
            await self._give_up(request)
            raise
        if not done:
            await self._give_up(request)
            server = self._server.name
            text = f"{what} on the MCP server {server} took longer than its timeout of {seconds:g} s"
            raise ToolTimeoutError(text, tool=what)
        if request.cancelled():
            raise asyncio.CancelledError
        failure = request.exception()
        if failure is None:
            return request.result()
        # A new error without the frames of the original: error reporters would show secrets in them.
        raise self._failed(failure, what)

    async def _asked(self, make: Callable[[Client], Awaitable[T]], client: Client) -> T:
        with self._in_use():
            return await make(client)

    async def _give_up(self, request: asyncio.Future[Any]) -> None:
        request.cancel()
        request.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        _, late = await asyncio.wait([request], timeout=_PARTING_SECONDS)
        if late:
            self._leave.set()

    def _failed(self, failure: BaseException, what: str) -> BaseException:
        """The exception to raise for a failed request."""
        from mcp import MCPError

        name = self._server.name
        if isinstance(failure, ToolError) or not isinstance(failure, Exception):
            return failure
        if not isinstance(failure, MCPError):
            text = f"the MCP server {name} sent an invalid answer: {self._server.clean(_reason(failure))}"
            return ToolError(text, tool=what)
        lost = failure.error.data == SESSION_LOST
        if lost or (self._server.calls_fail_alone and _may_be_the_sessions(failure)):
            self._retired = True  # the next call opens another; this one closes after its last request
            if not self._requests:
                self._leave.set()
        kind = SessionLostError if lost else ToolError
        return kind(f"the MCP server {name}: {self._server.clean(failure.message)}", tool=what)

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1
            if self._retired and not self._requests:
                self._leave.set()

    async def _own(self) -> None:
        """Open the connection, hold it, and close it, all in this task."""
        scope = self._scope
        try:
            with scope:
                async with AsyncExitStack() as stack:
                    client = await self._enter(stack)
                    scope.deadline = math.inf
                    self._client = client
                    self._opened.set()
                    try:
                        await self._leave.wait()
                    finally:
                        self._leave.set()
                        self._client = None
                        scope.deadline = anyio.current_time() + CLOSE_SECONDS
            if scope.cancelled_caught and anyio.current_time() >= scope.deadline:
                self._failure = TimeoutError(f"not connected within {self._connect_seconds:g} s")
        except Exception as error:  # noqa: BLE001 - any error: `opened` reports it to those who wait
            self._failure = error
            if self._opened.is_set():
                why = self._server.clean(_reason(error))
                log.debug("the connection to the MCP server %s broke: %s", self._server.name, why)
        finally:
            self._opened.set()

    async def _enter(self, stack: AsyncExitStack) -> Client:
        await asyncio.to_thread(_import_packages)
        stack.enter_context(cleaned_logs(_LIBRARIES, _LOGGERS, self._server.clean))
        from mcp import Client

        mender = Mender(self._server.name, self._server.clean, self._server.clean_result)
        streams = mending(self._server.open(), mender, self._leave.set)
        client = Client(streams, cache=None, message_handler=self._on_message)
        await stack.enter_async_context(client)
        capability = client.server_capabilities.tools
        if capability is not None and capability.list_changed:
            await self._subscribe(stack, client)
        self._tools = await self._listed(client)
        return client

    async def _listed(self, client: Client) -> list[Tool]:
        """All tools; of several with the same name, the first."""
        tools: dict[str, Tool] = {}
        cursors: set[str | None] = set()
        cursor: str | None = None
        while cursor not in cursors:
            cursors.add(cursor)
            page = await client.list_tools(cursor=cursor)
            for tool in page.tools:
                if tool.name in tools:
                    twice = f"a second tool with the name {tool.name!r}"
                    log.warning("ignored from the MCP server %s: %s", self._server.name, twice)
                tools.setdefault(tool.name, tool)
            cursor = page.next_cursor
            if cursor is None:
                return list(tools.values())
            if len(cursors) >= _MOST_PAGES:
                break
        why = f"has more than {_MOST_PAGES:,} pages" if cursor not in cursors else f"comes back to {cursor!r}"
        raise ToolError(f"the MCP server {self._server.name}: its list of tools has no end: nextCursor {why}")

    async def _on_message(self, message: IncomingMessage) -> None:
        """Handle a notification: servers send changes unasked up to the protocol of 2025."""
        from mcp.types import ToolListChangedNotification

        if isinstance(message, ToolListChangedNotification):
            self._tools_changed = True

    async def _subscribe(self, stack: AsyncExitStack, client: Client) -> None:
        """Subscribe to changes of the tools, which the protocol requires since 2026."""
        from mcp import MCPError
        from mcp.client.subscriptions import ListenNotSupportedError, SubscriptionLost

        self._hears_changes = False
        changes: Subscription | None = None
        try:
            with anyio.move_on_after(SUBSCRIBE_SECONDS):
                changes = await stack.enter_async_context(client.listen(tools_list_changed=True))
        except ListenNotSupportedError:
            self._hears_changes = True  # unasked
            return
        except (MCPError, SubscriptionLost):
            return
        if changes is not None:
            self._hears_changes = True
            group = await stack.enter_async_context(anyio.create_task_group())
            stack.callback(group.cancel_scope.cancel)
            group.start_soon(self._follow, changes)

    async def _follow(self, changes: Subscription) -> None:
        from mcp.client.subscriptions import SubscriptionLost

        with suppress(SubscriptionLost):
            async for _ in changes:
                self._tools_changed = True
        self._hears_changes = False


def _import_packages() -> None:
    """Import what a connection needs, including jsonschema, which `mcp` imports only during the first call.

    It takes a second, so call this in a thread.
    """
    for package in ("mcp", "jsonschema", "mcp.client.stdio", "mcp.client.streamable_http", "httpcore2"):
        import_module(package)


def _may_be_the_sessions(error: MCPError) -> bool:
    """Whether the server may have rejected the request, not the tool, because it has lost the session.

    Servers that restarted answer with various codes, among them -32001, which otherwise means a timeout.
    """
    from mcp.types import CONNECTION_CLOSED, INVALID_REQUEST, REQUEST_TIMEOUT

    return error.code in (CONNECTION_CLOSED, INVALID_REQUEST, REQUEST_TIMEOUT)


_ENDED = "; its program has ended: what it wrote to its standard error may say why, or start it by hand"


def _reason(failure: BaseException | None) -> str:
    """A failure as one line of text."""
    if isinstance(failure, ValidationError):  # without the values, which are long
        found = failure.errors(include_url=False, include_context=False, include_input=False)
        return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in found[:_MOST_FAULTS])
    return "the connection is closed" if failure is None else error_text(failure)
