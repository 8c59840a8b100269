"""The tool calls of a chat completion, put together of deltas as servers really send them."""

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
        """It came in one piece, and not in deltas."""

    def is_nothing(self, answered: bool) -> bool:
        """No tool is named, and nothing is passed to one: some servers send such an entry with every text.

        If nothing else was said (`answered`), one that has an id was meant as a call.
        """
        arguments = "".join(self.pieces)
        if answered or not (self.id or arguments):
            return not self.name and arguments_text(arguments) == "{}"
        return False

    def has_said(self, arguments: str) -> bool:
        """A delta holds all arguments once more."""
        if arguments[:1] != "{" or arguments[-1] != "}" or not self.pieces:
            return False
        return arguments == "".join(self.pieces) and self.complete()

    def goes_on(self, arguments: str) -> bool:
        """Arguments that are not whole yet are gone on with, and not begun."""
        return (
            bool(self.pieces and arguments) and not arguments.lstrip().startswith("{") and not self.complete()
        )

    def lacks(self) -> bool:
        """What was streamed of the arguments cannot be all."""
        return arguments_text("".join(self.pieces)) == "{}" or not self.complete()

    def is_repeated(self, identity: str, name: str, arguments: str) -> bool:
        """A delta holds all of this call once more, as some servers send it at a call's end."""
        return (identity, name, arguments) == (self.id, self.name, "".join(self.pieces))

    def complete(self) -> bool:
        """The arguments so far are a whole JSON value."""
        if not self.pieces or not self.pieces[-1].rstrip().endswith(("}", "null")):
            return False
        try:
            from_json(mended("".join(self.pieces)))
        except ValueError:
            return False
        return True


class Calls:
    """Puts calls together.

    OpenAI numbers the calls of an answer by `index` and sends id and name with a call's first delta. Others
    give all calls one index or none, leave out ids, repeat id and name with every delta, make up an id for
    each delta, or give two calls one id. What is one call follows from all of these together.

    Args:
        origin: The model that was asked.
        tell: Who is told of pieces of arguments: the call's id, its name, the piece.
    """

    def __init__(self, origin: Origin, tell: Callable[[str, str, str], None] | None = None) -> None:
        self._origin = origin
        self._tell = tell
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}
        self._by_id: dict[str, _Call] = {}
        self._marked: tuple[int, int] | None = None

    @property
    def begun(self) -> bool:
        """Whether there is any."""
        return bool(self._calls)

    def mark(self) -> None:
        """The calls are said to end here."""
        self._marked = self._size()

    @property
    def went_on(self) -> bool:
        """There was more after the mark."""
        return self._marked is not None and self._marked != self._size()

    def _size(self) -> tuple[int, int]:
        return len(self._calls), sum(len(call.pieces) for call in self._calls)

    def add(self, entries: list[dict[str, Any]]) -> None:
        """Take the deltas of one chunk."""
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
                if self._tell is not None and not call.whole:
                    self._tell(call.id, call.name, mended(arguments))

    def add_whole(self, entries: list[dict[str, Any]]) -> None:
        """Take the calls of an answer that is not streamed: every entry is one.

        If the answer was streamed before, its calls are there already, and are made once.
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
        """The entries that are not, with other words perhaps, calls that were read before."""
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
        """The calls; one without an id gets one.

        Args:
            mend: Puts the halves of characters together.
            answered: The answer is a text, by its finish reason too, and needs no call.
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
        """The call that a delta goes on with, if it begins none."""
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
        """Whether a delta that bears a name begins another call than the one that it seems to belong to."""
        if not call.name:
            return False
        if call in begun:
            return True
        if name != call.name:
            return True
        if identity and call.id and identity != call.id:  # or an id is made up for every delta
            return not call.goes_on(arguments)
        # Or else id and name are repeated with every delta.
        return arguments.lstrip().startswith(("{", "null")) and call.complete()


def _parts(entry: dict[str, Any]) -> tuple[str, str, str]:
    """Id, name and arguments of an entry; some servers leave out the object around the last two."""
    function = entry.get("function")
    function = function if isinstance(function, dict) else entry
    return text_of(entry.get("id")), text_of(function.get("name")), _piece(function.get("arguments"))


def _equal(call: _Call, identity: str, name: str, arguments: str) -> bool:
    """An entry repeats a call. Its id may be made up anew, if the call was streamed."""
    if name != call.name or (call.whole and identity != call.id):
        return False
    return bool(_value("".join(call.pieces)) == _value(arguments))


def _meant(call: _Call, identity: str, name: str, arguments: str) -> bool:
    """An entry stands for a call, of which one of the two says less, or something else."""
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
    """The entries of `tool_calls`, which a server may give as one object."""
    return sure_objects([calls] if isinstance(calls, dict) and calls else calls, "tool_calls", remarks)


def is_function(call: dict[str, Any]) -> bool:
    """Whether a call, or a delta of one, is that of a function, and not of a tool that takes text, say."""
    return "function" in call or (call.get("type") in ("function", "", None) and "custom" not in call)
