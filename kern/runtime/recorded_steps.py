"""The recorded steps of a run, handed out in the order in which they were made.

A run that is resumed or replayed may ask for its steps in another order, since team members work
concurrently. Each step therefore waits for those before it, and the commits to the session state are made in
between, at their recorded places. A step that is not recorded waits until all recorded ones were handed out,
so that everything before it has been done.

This cannot hang: what a step needs was done before it, and precedes it in the record. But if the program has
changed, it may never ask for a recorded step. Then the wait ends after `STALL_SECONDS`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Final

from kern._log import named
from kern.durable.journal import Entry
from kern.errors import ReplayMismatch
from kern.runtime.step_data import CHANGE

log: Final = named("kern")

STALL_SECONDS = 20.0
"""How long a step waits while no other one is asked for, before the steps in front of it are skipped."""

UNORDERED = ("base", "begun", "broken_off")
"""The kinds of entries that have no place in the order of steps."""


GONE = "%s is recorded, but the program does not make this step any more; the run continues without it"


class RecordedSteps:
    """The recorded steps that were not handed out yet.

    Args:
        entries: The recorded entries, in order.
        commit: Makes a recorded commit to the session state.
        strict: A recorded step that the program does not make is an error.
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
        """Iterate over the keys of the remaining steps, in order."""
        return iter(self._open)

    @property
    def played_out(self) -> bool:
        """Whether all recorded steps have been handed out."""
        return not self._open

    def peek(self, key: str) -> Entry | None:
        """Return the step of that key before its turn; None if it is not recorded."""
        return self._open.get(key)

    async def take(self, key: str) -> Entry | None:
        """Return the step of that key after those before it; None if it is not recorded.

        Raises:
            ReplayMismatch: The program does not make a step before it, in a strict replay.
        """
        self._note_other_hooks(key)
        entry = self._open.get(key)
        if entry is None:
            return None
        hooks = _same_side(key)
        while self._in_order and (first := self._first()) is not None and first != key:
            if hooks and first.startswith(hooks):  # the program calls the two in another order, or one only
                break
            self._waiting[key] = future = asyncio.get_running_loop().create_future()
            try:
                await self._woken(future, key, first)
            finally:
                self._waiting.pop(key, None)
        self._commit_up_to(entry)
        self._open.pop(key, None)
        self._handed_out += 1
        self.advance()
        return entry

    def _note_other_hooks(self, key: str) -> None:
        """Do not wait for a recorded hook that the program has no more, nor before one that it has more.

        Raises:
            ReplayMismatch: A recorded hook was not called, in a strict replay.
        """
        if key.endswith("/prompt"):  # all hooks before it were called
            for gone in self.skip(f"{key.removesuffix('/prompt')}/hook/before/"):
                if self._strict:
                    raise ReplayMismatch(f"{gone} is recorded, but the program does not make this step")
                log.warning(GONE, gone)
        if key not in self._open and not self._strict and (hooks := _same_side(key)):
            prompt = f"{key.partition('/hook/')[0]}/prompt"
            if prompt in self._open or any(other.startswith(hooks) for other in self._open):
                log.warning("%s is not recorded, and is called now: the program has another hook", key)
                self.leave_order()

    async def all_taken(self) -> None:
        """Wait until all recorded steps were handed out."""
        while self._in_order and (first := self._first()) is not None:
            future = asyncio.get_running_loop().create_future()
            self._live.append(future)
            await self._woken(future, "a step that is not in the recording", first)

    def skip(self, start: str) -> list[str]:
        """Skip the remaining steps whose keys begin so: they will not be made. Return their keys."""
        left = [key for key in self._open if key.startswith(start)]
        for key in left:
            del self._open[key]
        if left:
            self.advance()
        return left

    def advance(self) -> None:
        """Make the commits up to the next step, and wake the waiter for that step."""
        first = self._first()
        if first is None:
            self._commit_up_to(None)
            for future in self._live:
                _wake(future)
            self._live.clear()
        elif first in self._waiting:
            _wake(self._waiting[first])

    def _first(self) -> str | None:
        """Return the key of the first step that was not handed out."""
        return next(iter(self._open), None)

    def _commit_up_to(self, end: Entry | None) -> None:
        """Make the recorded commits before the step `end`; None: all."""
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
        """Wait for the turn of a step, or until nothing has happened for `STALL_SECONDS`."""
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
        log.warning(GONE, first)
        self.leave_order()

    def leave_order(self) -> None:
        """Make all recorded commits now; from here on, no step waits for those before it."""
        self._in_order = False
        self._commit_up_to(None)
        for future in [*self._waiting.values(), *self._live]:
            _wake(future)
        self._live.clear()


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _same_side(key: str) -> str:
    """How the keys of the run's hooks on the same side begin, if the key is a hook's; else ""."""
    run_id, hook, name = key.partition("/hook/")
    return f"{run_id}/hook/{name.partition('/')[0]}/" if hook else ""
