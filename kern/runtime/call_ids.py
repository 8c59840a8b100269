"""Ids of tool calls: servers may count anew in each answer; in a prompt each call has an id of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace

from kern.messages import Message, ToolCall

_LONGEST = 40
"""Longer ids are refused by some servers; an id that a server gave itself is kept, however long it is."""


class CallIds:
    """The ids of the calls in a prompt: results go by them, and so does what a person says of a call."""

    def __init__(self) -> None:
        self._used: set[str] = set()
        self._next: dict[str, int] = {}

    def take(self, wanted: str) -> str:
        """`wanted` if no other call has it, or else a new id that is like it."""
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
        """Give the calls of a new answer their ids."""
        calls = message.tool_calls
        named = self._named(calls)
        if any(new is not call for new, call in zip(named, calls, strict=True)):
            message.tool_calls = named

    def _named(self, calls: Sequence[ToolCall]) -> list[ToolCall]:
        """The calls under ids of their own; one that has one is itself."""
        named = []
        for call in calls:
            call_id = self.take(call.id)
            named.append(call if call_id == call.id else replace(call, id=call_id))
        return named

    def apply(self, messages: Iterable[Message]) -> list[Message]:
        """Messages in which each call has an id of its own, and each result that of its call.

        A message that changes is a copy: it may be stored, or be somebody else's.
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
                if any(new is not call for new, call in zip(named, calls, strict=True)):
                    message = replace(message, tool_calls=named)
            elif message.role == "tool" and (waiting := open_calls.get(message.tool_call_id or "")):
                call_id = waiting.popleft()
                if call_id != message.tool_call_id:
                    message = replace(message, tool_call_id=call_id)
            applied.append(message)
        return applied
