"""The tool calls of a chat completion, put together of deltas as servers really send them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

from pydantic_core import from_json

from kern._json import json_bytes
from kern.messages import ToolCall
from kern.models.openai._chat_encode import PROVIDER
from kern.models.openai._reading import text_of
from kern.models.openai._responses_output import arguments_text

_LONGEST_INDEX = 9  # digits


class _Call:
    __slots__ = ("extra", "id", "name", "pieces")

    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.extra: dict[str, Any] | None = None
        self.pieces: list[str] = []

    def is_repeated(self, identity: str, name: str, arguments: str) -> bool:
        """A delta holds all of this call once more, as some servers send it at a call's end."""
        return (identity, name, arguments) == (self.id, self.name, "".join(self.pieces))

    def complete(self) -> bool:
        """The arguments so far are a whole JSON value."""
        if not self.pieces or not self.pieces[-1].rstrip().endswith(("}", "null")):
            return False
        try:
            from_json("".join(self.pieces))
        except ValueError:
            return False
        return True


class Calls:
    """Puts calls together.

    OpenAI numbers the calls of an answer by `index` and sends id and name with a call's first delta. Others
    give all calls one index or none, leave out ids, repeat id and name with every delta, make up an id for
    each delta, or give two calls one id. What is one call follows from all of these together.

    Args:
        model: The id of the model that was asked.
    """

    def __init__(self, model: str) -> None:
        self._model = model
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}
        self._by_id: dict[str, _Call] = {}

    def add(self, entries: list[dict[str, Any]]) -> None:
        """Take the deltas of one chunk."""
        begun: set[_Call] = set()
        for entry in entries:
            function = entry.get("function")
            function = function if isinstance(function, dict) else {}
            index, identity = _index(entry.get("index")), text_of(entry.get("id"))
            name, arguments = text_of(function.get("name")), _piece(function.get("arguments"))
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
            if arguments:
                call.pieces.append(arguments)

    def add_whole(self, entries: list[dict[str, Any]]) -> None:
        """Take the calls of an answer that is not streamed: every entry is one."""
        for entry in entries:
            self._by_index.clear()
            self._by_id.clear()
            self._calls.append(_Call())
            self._by_index[0] = self._calls[-1]
            self.add([{**entry, "index": 0}])

    def built(self, mend: Callable[[str], str]) -> list[ToolCall]:
        """The calls; one without an id gets one."""
        return [
            ToolCall(
                call.id or f"call_{uuid4().hex}",
                call.name,
                arguments_text(mend("".join(call.pieces))),
                {PROVIDER: {"model": self._model, "extra_content": call.extra}} if call.extra else None,
            )
            for call in self._calls
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
        if identity and call.id and identity != call.id:
            return True
        if name != call.name:
            return True
        # Or else id and name are repeated with every delta.
        return arguments.lstrip().startswith(("{", "null")) and call.complete()


def _index(value: Any) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= _LONGEST_INDEX:
        return int(value)
    return value if isinstance(value, int) else None


def _piece(arguments: Any) -> str:
    if isinstance(arguments, str) or arguments is None:
        return arguments or ""
    return json_bytes(arguments).decode()
