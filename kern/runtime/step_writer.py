"""Writes the steps of a run to its journal, in batches, together with the commits to the session state.

The journal always has a prefix of the commits. The step of a call is written together with the commits of the
call, and after all earlier commits. If an earlier commit belongs to a call whose step is not ready yet, both
wait for that step: otherwise a process that resumes the run would find the change of a call that it repeats.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import takewhile

from kern.durable.journal import Entry
from kern.state.shared_state import Change

Owner = tuple[str | None, str | None]
"""Run id and tool call id of the author of commits; no call id for hooks and the prompt."""


@dataclass(slots=True, eq=False)
class _Kept:
    """A step that waits to be written."""

    entry: Entry
    owner: Owner | None
    done: asyncio.Future[None]


class StepWriter:
    """Writes steps and commits.

    Args:
        append: Writes entries to the journal, all or none.
        entry_of: Makes the entry of a commit.
    """

    def __init__(
        self, append: Callable[[Sequence[Entry]], Awaitable[None]], entry_of: Callable[[Change], Entry]
    ) -> None:
        self._append = append
        self._entry_of = entry_of
        self._changes: deque[Change] = deque()
        self._queue: list[_Kept] = []
        self._in_progress: dict[Owner, list[Callable[[], bool]]] = {}
        self._task: asyncio.Task[None] | None = None

    def changed(self, change: Change) -> None:
        """Note a commit to the session state, of any author. Called from any thread, in their order."""
        self._changes.append(change)

    @contextmanager
    def in_progress(self, owner: Owner) -> Iterator[None]:
        """Wrap a step: the commits of its call are written together with it."""
        self._in_progress[owner] = []
        try:
            yield
        finally:
            del self._in_progress[owner]
            if self._queue:  # others may have waited for this step, which failed
                self._start()

    def watch(self, owner: Owner, over: Callable[[], bool]) -> None:
        """Watch a transaction of a step in progress: its commits, when it is `over`, wait for the step."""
        calls = self._in_progress.get(owner)
        if calls is not None:
            calls.append(over)

    async def keep(self, entry: Entry, owner: Owner | None = None) -> None:
        """Write a step, with the commits of its owner. Return when it is written.

        Raises:
            KernError: The journal cannot be written.
        """
        kept = _Kept(entry, owner, asyncio.get_running_loop().create_future())
        self._queue.append(kept)
        self._start()
        await asyncio.shield(kept.done)

    async def flush(self) -> None:
        """Write the commits that belong to no step."""
        await self.settled()
        if self._changes:
            await self._append([self._entry_of(self._changes.popleft()) for _ in range(len(self._changes))])

    async def settled(self) -> None:
        """Wait until nothing is being written."""
        while self._task is not None and not self._task.done():
            await asyncio.wait([self._task])

    def _start(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._write())

    async def _write(self) -> None:
        while True:
            changes, kept = self._batch()
            if not kept:
                return
            self._queue = [other for other in self._queue if other not in kept]
            for _ in changes:
                self._changes.popleft()
            try:
                await self._append(list(self._entries(changes, kept)))
            except BaseException as error:  # noqa: BLE001 - raised in those who wait
                for one in kept:
                    _fail(one.done, error)
            else:
                for one in kept:
                    if not one.done.done():
                        one.done.set_result(None)

    def _batch(self) -> tuple[list[Change], list[_Kept]]:
        """Return what can be written now: the longest prefix of the commits, and the steps that it covers."""
        changes = list(self._changes)
        ready = {one.owner for one in self._queue if one.owner is not None}
        while True:
            first = list(takewhile(partial(self._free, ready), changes))
            late = {_owner(change) for change in changes[len(first) :]} & ready
            if not late:
                break
            ready -= late
        return first, [one for one in self._queue if one.owner is None or one.owner in ready]

    def _free(self, ready: set[Owner], change: Change) -> bool:
        """Whether the commit may be written: with its step, or because it belongs to no ended transaction."""
        owner = _owner(change)
        return owner in ready or not any(over() for over in self._in_progress.get(owner, ()))

    def _entries(self, changes: Sequence[Change], kept: Sequence[_Kept]) -> Iterator[Entry]:
        """Yield the entries, each step right after the last of its commits."""
        last = {_owner(change): index for index, change in enumerate(changes)}
        steps = {one.owner: one.entry for one in kept if one.owner in last}
        for index, change in enumerate(changes):
            yield self._entry_of(change)
            owner = _owner(change)
            if owner in steps and last[owner] == index:
                yield steps[owner]
        yield from (one.entry for one in kept if one.owner not in steps)


def _owner(change: Change) -> Owner:
    return change.author.run_id, change.author.tool_call_id


def _fail(done: asyncio.Future[None], error: BaseException) -> None:
    if isinstance(error, asyncio.CancelledError):
        done.cancel()
    elif not done.done():
        done.set_exception(error)
        done.exception()  # the waiter may have been cancelled, and asyncio would warn
