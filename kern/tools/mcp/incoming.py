"""Repairs messages from a server and masks secrets in them, before the package `mcp` reads them.

The package rejects a whole message for one malformed tool or one malformed part of a result, with an error
that quotes it. A secret that is masked here cannot appear anywhere later.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from kern._error_text import counted
from kern._json import json_bytes
from kern._log import named

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mcp.shared.message import SessionMessage

Streams = tuple[Any, Any]
"""The streams to read from and to write to, as `mcp.client.Transport` defines them."""

Clean = Callable[[str], str]

log: Final = named("kern")

NO_MESSAGE = "the answer is not a message of the MCP protocol"

_LARGE = 128 * 1024
"""Messages of at least this size in bytes are checked in a thread, to keep the event loop responsive."""

_MOST_PARTS = 1000
_MOST_TOOLS = 2000


@dataclass(slots=True, frozen=True)
class Mender:
    """Repairs a server's messages.

    Args:
        server: The server's name in warnings.
        clean: Masks the server's secrets in texts for people.
        clean_result: Masks them in results for the model, where fewer values count as secret.
    """

    server: str
    clean: Clean = field(repr=False)
    clean_result: Clean = field(repr=False)

    async def mended(self, item: SessionMessage | Exception) -> SessionMessage | Exception:
        """The repaired message."""
        if isinstance(item, Exception):
            return self._unreadable(item)
        message = item.message
        held = getattr(message, "result", None) or getattr(message, "params", None)
        if held is not None and len(json_bytes(held)) >= _LARGE:
            await asyncio.to_thread(self._mend, message)
        else:
            self._mend(message)
        return item

    def _mend(self, message: Any) -> None:
        from mcp.types import PARSE_ERROR, ErrorData

        if hasattr(message, "error"):
            error = message.error
            said = NO_MESSAGE if _is_the_packages(error, PARSE_ERROR) else self.clean(error.message)
            message.error = ErrorData(code=error.code, message=said, data=_without(error.data, self.clean))
        elif hasattr(message, "result"):
            result = message.result
            clean = self.clean if result.get("isError") is True else self.clean_result
            result = _without(result, clean)
            if isinstance(result.get("tools"), list):
                result = {**result, "tools": self._tools(result["tools"])}
            elif isinstance(result.get("content"), list):
                result = {**result, "content": _parts(result["content"])}
            message.result = result
        elif message.params is not None:
            message.params = _without(message.params, self.clean)

    def _tools(self, listed: list[Any]) -> list[dict[str, Any]]:
        """The tools that can be used; logs a warning for each other."""
        from mcp.types import Tool

        tools = []
        for tool in listed[:_MOST_TOOLS]:
            name = tool.get("name") if isinstance(tool, dict) else None
            if not isinstance(name, str) or not name.strip():
                self._warn("a tool without a name")
                continue
            schema = tool.get("inputSchema")
            schema = {**schema, "type": "object"} if isinstance(schema, dict) else {"type": "object"}
            whole = {**tool, "inputSchema": schema}
            least = {key: whole[key] for key in ("name", "inputSchema")}
            if isinstance(tool.get("description"), str):
                least["description"] = tool["description"]
            for form in (whole, least):
                try:
                    Tool.model_validate(form, by_name=False)
                except ValidationError:
                    continue
                tools.append(form)
                break
            else:
                self._warn(f"the tool {tool['name']!r}, whose definition is invalid")
        if len(listed) > _MOST_TOOLS:
            self._warn(f"the tools after the first {_MOST_TOOLS:,}")
        return tools

    def _warn(self, what: str) -> None:
        log.warning("ignored from the MCP server %s: %s", self.server, what)

    def _unreadable(self, failure: Exception) -> SessionMessage | Exception:
        """Repair a line that the package could not read, or make it the error of the request it answers."""
        if not isinstance(failure, ValidationError):
            return failure
        from mcp.shared.message import SessionMessage
        from mcp.types import PARSE_ERROR, ErrorData, JSONRPCError, jsonrpc_message_adapter

        given = [error["input"] for error in failure.errors(include_url=False, include_context=False)]
        message = next((value for value in map(_json_of, given) if isinstance(value, dict)), None)
        if message is None:
            return ValueError("a line that is not a message of the protocol")
        try:
            whole = SessionMessage(jsonrpc_message_adapter.validate_python(message, by_name=False))
        except ValidationError:
            request = message.get("id")
            if "method" in message or not isinstance(request, str | int) or isinstance(request, bool):
                return ValueError("a line that is not a message of the protocol")
            error = ErrorData(code=PARSE_ERROR, message=NO_MESSAGE)
            return SessionMessage(JSONRPCError(jsonrpc="2.0", id=request, error=error))
        self._mend(whole.message)
        return whole


@asynccontextmanager
async def mending(
    streams: AbstractAsyncContextManager[Streams], mender: Mender, ended: Callable[[], None]
) -> AsyncIterator[Streams]:
    """The same streams with repaired messages; `ended` is called when the incoming stream ends."""
    async with streams as (incoming, outgoing):
        yield _Incoming(incoming, mender, ended), outgoing


class _Incoming:
    """A stream of messages that reports when its reader leaves it, which is at its end."""

    def __init__(self, stream: Any, mender: Mender, ended: Callable[[], None]) -> None:
        self._stream = stream
        self._mender = mender
        self._ended = ended

    @property
    def last_context(self) -> Any:
        """The context of the last message; None for transports without contexts."""
        return getattr(self._stream, "last_context", None)

    async def receive(self) -> Any:
        return await self._mender.mended(await self._stream.receive())

    async def aclose(self) -> None:
        await self._stream.aclose()

    def __aiter__(self) -> _Incoming:
        return self

    async def __anext__(self) -> Any:
        return await self._mender.mended(await self._stream.__anext__())

    async def __aenter__(self) -> _Incoming:
        await self._stream.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended()
        await self._stream.__aexit__(kind, error, trace)


async def read_message(body: bytes) -> bytes | None:
    """The body with invalid characters repaired; None if it is not a message."""
    return _read(body) if len(body) < _LARGE else await asyncio.to_thread(_read, body)


def _read(body: bytes) -> bytes | None:
    from mcp.types import JSONRPCError, JSONRPCResponse, jsonrpc_message_adapter

    mended = False
    try:
        message = from_json(body)
    except ValueError:
        message = _json_of(body.decode(errors="replace"))
        mended = True
    result = message.get("result") if isinstance(message, dict) else None
    try:
        if result is not None:  # validating against the union of all messages takes ten times as long
            JSONRPCResponse.model_validate(message, by_name=False)
        elif isinstance(message, dict) and "error" in message:
            JSONRPCError.model_validate(message, by_name=False)
        else:
            jsonrpc_message_adapter.validate_python(message, by_name=False)
    except ValidationError:
        return None
    content = result.get("content") if isinstance(result, dict) else None
    if isinstance(content, list) and len(content) > _MOST_PARTS:
        message["result"] = {**message["result"], "content": _parts(content)}
        mended = True
    return json_bytes(message) if mended else body


def _json_of(given: Any) -> Any:
    """Parse JSON, with lone surrogates replaced; a value that is not a str was parsed already."""
    if not isinstance(given, str):
        return given
    try:
        return from_json(json_bytes(json.loads(given)))
    except (ValueError, RecursionError):
        return None


def _is_the_packages(error: Any, code: int) -> bool:
    """Whether the error comes from the package, not the server: it quotes what it could not read."""
    return bool(error.code == code and error.message.startswith("Failed to parse "))


def _without(value: Any, clean: Clean) -> Any:
    """JSON data with secrets masked in names and values; the same object if there are none."""
    if value is None:
        return None
    written = "\0".join(_texts(value))
    return value if clean(written) is written else _cleaned(value, clean)


def _texts(value: Any) -> list[str]:
    """All texts in JSON data, in any order."""
    found: list[str] = []
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            found.append(one)
        elif isinstance(one, dict):
            found += one
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
    return found


def _cleaned(value: Any, clean: Clean) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {clean(name): _cleaned(item, clean) for name, item in value.items()}
    if isinstance(value, list):
        return [_cleaned(item, clean) for item in value]
    return value


def _parts(content: list[Any]) -> list[dict[str, Any]]:
    """The parts of a result; an unreadable one is replaced by a text that says so."""
    adapter = _adapter()
    many = len(content) > _MOST_PARTS
    parts: list[dict[str, Any]] = []
    texts: list[str] = []
    for block in content:
        text = _text_of(block, adapter)
        if text is None or not many:
            if texts:
                parts.append({"type": "text", "text": "\n".join(texts)})
                texts = []
            parts.append(block if text is None else {"type": "text", "text": text})
        else:
            texts.append(text)  # join thousands of texts, which the package would validate one by one
    if texts:
        parts.append({"type": "text", "text": "\n".join(texts)})
    if len(parts) > _MOST_PARTS:
        left = f"[{counted(len(parts) - _MOST_PARTS, 'more parts')} left out]"
        parts[_MOST_PARTS:] = [{"type": "text", "text": left}]
    return parts


@cache
def _adapter() -> TypeAdapter[Any]:
    from mcp.types import ContentBlock

    return TypeAdapter(ContentBlock)


def _text_of(block: Any, adapter: TypeAdapter[Any]) -> str | None:
    """The text of a text part, or a text that says the part is unreadable; None for other parts."""
    if not isinstance(block, dict):
        return block if isinstance(block, str) else f"[a part that cannot be read: {type(block).__name__}]"
    if block.get("type") == "text" and isinstance(block.get("text"), str):
        return str(block["text"])
    try:
        adapter.validate_python(block, by_name=False)
    except ValidationError:
        kind = str(block.get("type"))[:100]
        return f"[a part of the type {kind!r}, which cannot be read]"
    return None
