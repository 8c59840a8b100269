"""Ids of tool calls: servers may repeat ids in each answer, but in a prompt each call needs its own id."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace

from kern._json import value_text
from kern.messages import Message, ToolCall

_LONGEST = 40
"""The maximum length of new ids: some servers refuse longer ones. Ids of a server itself may be longer."""


class CallIds:
    """The ids of the calls in a prompt: results, and the answers of people, refer to calls by their ids."""

    def __init__(self) -> None:
        self._used: set[str] = set()
        self._next: dict[str, int] = {}

    def take(self, wanted: str) -> str:
        """Return `wanted` if no other call has it; otherwise a new id with that beginning."""
        wanted = wanted or "call"
        chosen = wanted
        while chosen in self._used:
            number = self._next.get(wanted, 2)
            self._next[wanted] = number + 1
            ending = f"-{number}"
            chosen = wanted[: _LONGEST - len(ending)] + ending
        self._used.add(chosen)
        return chosen

    def ensure_unique_ids(self, message: Message) -> None:
        """Make the ids of the calls in a new answer unique."""
        calls = message.tool_calls
        named = self._named(calls)
        if named != calls:
            message.tool_calls = named

    def _named(self, calls: Sequence[ToolCall]) -> list[ToolCall]:
        """Return the calls with unique ids. A call whose id is unique stays the same object."""
        named = []
        for call in calls:
            given: tuple[object, object, object] = (call.id, call.name, call.arguments)
            if not (isinstance(given[0], str) and isinstance(given[1], str) and isinstance(given[2], str)):
                # of a model outside Kern
                call_id, name, arguments = map(value_text, given)
                call = replace(call, id=call_id, name=name, arguments=arguments)
            call_id = self.take(call.id)
            named.append(call if call_id == call.id else replace(call, id=call_id))
        return named

    def apply(self, messages: Iterable[Message]) -> list[Message]:
        """Return messages in which each call has a unique id, and each result the id of its call.

        A message is copied before a change: it may be stored, or belong to the application.
        """
        applied = []
        open_calls: dict[str, deque[str]] = {}
        for message in messages:
            calls = [] if message.is_text else message.tool_calls
            if calls:
                named = self._named(calls)
                open_calls = {}
                for call, new in zip(calls, named, strict=True):
                    open_calls.setdefault(call.id, deque()).append(new.id)
                if named != calls:
                    message = replace(message, tool_calls=named)
            elif message.role == "tool" and (waiting := open_calls.get(message.tool_call_id or "")):
                call_id = waiting.popleft()
                if call_id != message.tool_call_id:
                    message = replace(message, tool_call_id=call_id)
            applied.append(message)
        return applied
