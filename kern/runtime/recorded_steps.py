"""The steps that are on record, handed out in the order in which they were done.

A run that is played again meets its steps in an order of its own: members work at the same time. Each step
therefore waits for those before it, and the commits to the session state come where they came. What is not on
record waits until all that is has been handed out: whatever is done for real finds everything before it done.

That cannot hang: whatever a step needs was done before it, and stands before it in the record. If the program
is another one by now, a step on record may never be asked for. Then the wait is given up after a while.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Final

from kern._log import named
from kern.durable.journal import Entry
from kern.errors import ReplayMismatch

log: Final = named("kern")

STALL_SECONDS = 20.0
"""How long a step waits while no other one is asked for, before it is taken that none will be."""

CHANGE = "change"
"""The kind of an entry that is a commit to the session state."""

UNORDERED = ("base", "begun", "broken_off")
"""Kinds of entries that nobody asks for in turn."""


class RecordedSteps:
    """What is on record and not handed out yet.

    Args:
        entries: The record, in its order.
        commit: Makes a recorded commit to the session state.
        strict: A step that nobody asks for is an error.
    """

    def __init__(self, entries: Sequence[Entry], commit: Callable[[Entry], None], *, strict: bool) -> None:
        self._entries = [entry for entry in entries if entry.kind not in UNORDERED]
        self._open = {entry.key: entry for entry in self._entries if entry.kind != CHANGE}
        self._commit = commit
        self._strict = strict
        self._at = 0
        self._handed_out = 0
        self._in_order = True
        self._waiting: dict[str, asyncio.Future[None]] = {}
        self._live: list[asyncio.Future[None]] = []

    def __contains__(self, key: str) -> bool:
        return key in self._open

    def __iter__(self) -> Iterator[str]:
        """The keys of the steps that nobody has asked for yet, in order."""
        return iter(self._open)

    @property
    def played_out(self) -> bool:
        """All steps on record have been handed out."""
        return not self._open

    def look_at(self, key: str) -> Entry | None:
        """The step of that key, before its turn; None if it is not on record."""
        return self._open.get(key)

    async def take(self, key: str) -> Entry | None:
        """The step of that key, once those before it were handed out; None if it is not on record.

        Raises:
            ReplayMismatch: A step before it is never asked for.
        """
        entry = self._open.get(key)
        if entry is None:
            return None
        while self._in_order and (first := self._first()) is not None and first != key:
            self._waiting[key] = future = asyncio.get_running_loop().create_future()
            try:
                await self._woken(future, key, first)
            finally:
                self._waiting.pop(key, None)
        self._commit_up_to(entry)
        self._open.pop(key, None)
        self._handed_out += 1
        self.go_on()
        return entry

    async def all_taken(self) -> None:
        """Wait until all steps on record were handed out."""
        while self._in_order and (first := self._first()) is not None:
            future = asyncio.get_running_loop().create_future()
            self._live.append(future)
            await self._woken(future, "a step that is not in the recording", first)

    def skip(self, run_id: str) -> list[str]:
        """Nobody will ask for the steps of that run that are left: it has ended. Returns them."""
        left = [key for key in self._open if key.startswith(f"{run_id}/")]
        for key in left:
            del self._open[key]
        if left:
            self.go_on()
        return left

    def go_on(self) -> None:
        """Make the commits that no step is left for, and wake up whoever's turn it is."""
        first = self._first()
        if first is None:
            self._commit_up_to(None)
            for future in self._live:
                _wake(future)
            self._live.clear()
        elif first in self._waiting:
            _wake(self._waiting[first])

    def _first(self) -> str | None:
        """The key of the first step that was not handed out."""
        return next(iter(self._open), None)

    def _commit_up_to(self, end: Entry | None) -> None:
        """Make the commits that come before the step `end`; None: all."""
        entries = self._entries
        while self._at < len(entries):
            entry = entries[self._at]
            if entry.kind != CHANGE and entry.key in self._open and self._in_order and entry is not end:
                return
            self._at += 1
            if entry.kind == CHANGE:
                self._commit(entry)
            elif entry is end:
                return

    async def _woken(self, future: asyncio.Future[None], who: str, first: str) -> None:
        """Wait for the turn, or until it is clear that it does not come."""
        while not future.done():
            before = self._handed_out
            with suppress(TimeoutError):
                async with asyncio.timeout(STALL_SECONDS):
                    await asyncio.wait([future])
            if not future.done() and self._handed_out == before:
                self._give_up(who, first)

    def _give_up(self, who: str, first: str) -> None:
        if self._strict:
            raise ReplayMismatch(f"{first} is recorded before {who}, but the program does not make this step")
        log.warning(
            "%s is recorded, but the program does not make this step any more; the run continues without it",
            first,
        )
        self._in_order = False
        self._commit_up_to(None)
        for future in [*self._waiting.values(), *self._live]:
            _wake(future)
        self._live.clear()


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
