"""The tool calls of a chat completion, assembled from deltas as servers really send them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

from pydantic_core import from_json

from kern._json import json_bytes
from kern.messages import Origin, ToolCall
from kern.models._reading import sure_objects, text_of
from kern.models._text_stream import mended
from kern.models.openai._responses_output import arguments_text

_LONGEST_INDEX = 9  # digits


class _Call:
    __slots__ = ("extra", "id", "name", "pieces", "whole")

    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.extra: dict[str, Any] | None = None
        self.pieces: list[str] = []
        self.whole = False
        """Whether it came as a whole, not in deltas."""

    def is_nothing(self, answered: bool) -> bool:
        """Whether the entry has no name and no arguments: some servers send such an entry with every text.

        If there is no other answer (`answered` is False), an entry with an id is meant as a call.
        """
        arguments = "".join(self.pieces)
        if answered or not (self.id or arguments):
            return not self.name and arguments_text(arguments) == "{}"
        return False

    def has_said(self, arguments: str) -> bool:
        """Whether a delta repeats all arguments."""
        if arguments[:1] != "{" or arguments[-1] != "}" or not self.pieces:
            return False
        return arguments == "".join(self.pieces) and self.complete()

    def goes_on(self, arguments: str) -> bool:
        """Whether the arguments continue incomplete ones, and do not begin new ones."""
        return (
            bool(self.pieces and arguments) and not arguments.lstrip().startswith("{") and not self.complete()
        )

    def lacks(self) -> bool:
        """Whether the streamed arguments must be incomplete."""
        return arguments_text("".join(self.pieces)) == "{}" or not self.complete()

    def is_repeated(self, identity: str, name: str, arguments: str) -> bool:
        """Whether a delta repeats the whole call, as some servers do at the end of a call."""
        return (identity, name, arguments) == (self.id, self.name, "".join(self.pieces))

    def complete(self) -> bool:
        """Whether the arguments so far are a complete JSON value."""
        if not self.pieces or not self.pieces[-1].rstrip().endswith(("}", "null")):
            return False
        try:
            from_json(mended("".join(self.pieces)))
        except ValueError:
            return False
        return True


class Calls:
    """Assembles calls from deltas.

    OpenAI numbers the calls of an answer by `index`, and sends id and name with the first delta of a call.
    Other servers give all calls the same index or none, leave out ids, repeat id and name with every delta,
    invent an id for each delta, or give two calls the same id. Which deltas belong to one call is derived
    from all of these together.

    Args:
        origin: The model that was asked.
        tell: Called with deltas of arguments: the id of the call, its name, the delta.
    """

    def __init__(self, origin: Origin, tell: Callable[[str, str, str], None] | None = None) -> None:
        self._origin = origin
        self._put_arguments = tell
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}
        self._by_id: dict[str, _Call] = {}
        self._marked: tuple[int, int] | None = None

    @property
    def begun(self) -> bool:
        """Whether there is any call."""
        return bool(self._calls)

    @property
    def complete(self) -> bool:
        """Whether the arguments of all calls are whole."""
        return all(call.complete() for call in self._calls)

    def mark(self) -> None:
        """Note that the server says that the calls end here."""
        self._marked = self._size()

    @property
    def went_on(self) -> bool:
        """Whether there were deltas after the mark."""
        return self._marked is not None and self._marked != self._size()

    def _size(self) -> tuple[int, int]:
        return len(self._calls), sum(len(call.pieces) for call in self._calls)

    def add(self, entries: list[dict[str, Any]]) -> None:
        """Add the deltas of one chunk."""
        begun: set[_Call] = set()
        for entry in entries:
            index = _index(entry.get("index"))
            identity, name, arguments = _parts(entry)
            call = self._find(index, identity, name)
            if call is None or (name and self._another(call, identity, name, arguments, begun)):
                if call is not None and identity and call.is_repeated(identity, name, arguments):
                    continue
                call = _Call()
                self._calls.append(call)
                begun.add(call)
            if index is not None:
                self._by_index[index] = call
            if identity:
                self._by_id[identity] = call
            call.id = call.id or identity
            call.name = call.name or name
            if isinstance(extra := entry.get("extra_content"), dict) and extra:
                call.extra = extra
            if arguments and not call.has_said(arguments):
                call.pieces.append(arguments)
                if self._put_arguments is not None and not call.whole:
                    self._put_arguments(call.id, call.name, mended(arguments))

    def add_whole(self, entries: list[dict[str, Any]]) -> None:
        """Add the calls of an answer that is not streamed: every entry is a call.

        Calls that were streamed before are not added again.
        """
        for entry in self._new(entries):
            self._by_index.clear()
            self._by_id.clear()
            call = _Call()
            call.whole = True
            self._calls.append(call)
            self._by_index[0] = call
            self.add([{**entry, "index": 0}])

    def _new(self, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the entries that are new, and do not repeat a call that was read before."""
        if not self._calls:
            return entries
        read = list(self._calls)
        for same in (_equal, _meant):
            left = []
            for entry in entries:
                identity, name, arguments = _parts(entry)
                call = next((call for call in read if same(call, identity, name, arguments)), None)
                if call is None:
                    left.append(entry)
                    continue
                read.remove(call)
                if arguments and call.lacks():
                    call.pieces = [arguments]
                call.name = call.name or name
                if isinstance(extra := entry.get("extra_content"), dict) and extra:
                    call.extra = extra
            entries = left
        return entries

    def built(self, mend: Callable[[str], str], *, answered: bool) -> list[ToolCall]:
        """Return the calls. A call without an id gets one.

        Args:
            mend: Joins split characters.
            answered: The answer is a text, also by its finish reason, and needs no call.
        """
        return [
            ToolCall(
                call.id or f"call_{uuid4().hex}",
                call.name,
                arguments_text(mend("".join(call.pieces))),
                {"extra_content": call.extra} if call.extra else None,
                origin=self._origin,
            )
            for call in self._calls
            if not call.is_nothing(answered)
        ]

    def _find(self, index: int | None, identity: str, name: str) -> _Call | None:
        """Return the call that a delta continues; None if it begins a new one."""
        known = self._by_id.get(identity) if identity else None
        if index is None:
            return known or (None if identity and name else self._last())
        call = self._by_index.get(index)
        if call is not None:
            return known if known is not None and call.id != identity else call
        return None if name else known or self._last()

    def _last(self) -> _Call | None:
        return self._calls[-1] if self._calls else None

    def _another(self, call: _Call, identity: str, name: str, arguments: str, begun: set[_Call]) -> bool:
        """Whether a delta with a name begins a new call, not the one that it seems to continue."""
        if not call.name:
            return False
        if call in begun:
            return True
        if name != call.name:
            return True
        if identity and call.id and identity != call.id:  # or an id is made up for every delta
            return not call.goes_on(arguments)
        # Otherwise the server repeats id and name with every delta.
        return arguments.lstrip().startswith(("{", "null")) and call.complete()


def _parts(entry: dict[str, Any]) -> tuple[str, str, str]:
    """Return id, name and arguments of an entry. Some servers leave out the object around the last two."""
    function = entry.get("function")
    function = function if isinstance(function, dict) else entry
    return text_of(entry.get("id")), text_of(function.get("name")), _piece(function.get("arguments"))


def _equal(call: _Call, identity: str, name: str, arguments: str) -> bool:
    """Whether an entry repeats a call. If the call was streamed, the id may differ."""
    if name != call.name or (call.whole and identity != call.id):
        return False
    return bool(_value("".join(call.pieces)) == _value(arguments))


def _meant(call: _Call, identity: str, name: str, arguments: str) -> bool:
    """Whether an entry means the same call, although one of the two is incomplete or differs."""
    if name != call.name and name and call.name:
        return False
    if identity and identity == call.id:
        return True
    return not call.whole and call.lacks() and arguments.startswith("".join(call.pieces))


def _value(arguments: str) -> Any:
    try:
        return from_json(mended(arguments_text(arguments)))
    except ValueError:
        return arguments


def _index(value: Any) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= _LONGEST_INDEX:
        return int(value)
    return value if isinstance(value, int) else None


def _piece(arguments: Any) -> str:
    if isinstance(arguments, str) or arguments is None:
        return arguments or ""
    return json_bytes(arguments).decode()


def entries_of(calls: Any, remarks: list[str]) -> list[dict[str, Any]]:
    """Return the entries of `tool_calls`, which may also be a single object."""
    return sure_objects([calls] if isinstance(calls, dict) and calls else calls, "tool_calls", remarks)


def is_function(call: dict[str, Any]) -> bool:
    """Whether a call, or a delta of one, is of a function, not of another kind of tool."""
    return "function" in call or (call.get("type") in ("function", "", None) and "custom" not in call)
