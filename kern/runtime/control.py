"""Runs that can be cancelled by their id: in this process at once, from another one through the database."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

from kern.db.base import Db
from kern.db.in_memory import InMemoryDb
from kern.errors import StoreError
from kern.runtime.run import Run, Tree, log

POLL_SECONDS = 1.0
"""How often the database is asked whether another process wants a run to be cancelled."""


class ActiveRuns:
    """The trees of runs that this process drives."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._trees: dict[str, tuple[Tree, asyncio.AbstractEventLoop]] = {}
        self._watching: WeakKeyDictionary[asyncio.AbstractEventLoop, set[Hashable]] = WeakKeyDictionary()
        """The databases that a timer of the loop asks; weak, since a loop may end before its timer does."""

    @contextmanager
    def register(self, tree: Tree) -> Iterator[None]:
        """The tree is driven by the running loop, inside of the block."""
        loop = asyncio.get_running_loop()
        run_id = tree.request.run_id
        with self._mutex:
            self._trees[run_id] = (tree, loop)
        self._watch(tree.request.db, loop)
        try:
            yield
        finally:
            with self._mutex:
                self._trees.pop(run_id, None)

    def cancel(self, run_id: str) -> bool:
        """Cancel the run, a member's too; from any thread. False if this process drives no such run."""
        with self._mutex:
            trees = list(self._trees.values())
        for tree, loop in trees:
            for run in list(tree.runs):
                if run.run_id == run_id:
                    loop.call_soon_threadsafe(run.stop)
                    return True
        return False

    def drives(self, run_id: str) -> bool:
        """Whether this process drives the top-level run of that id."""
        with self._mutex:
            return run_id in self._trees

    def _watch(self, db: Db, loop: asyncio.AbstractEventLoop) -> None:
        """See that the database is asked, as long as runs of it go on."""
        if isinstance(db, InMemoryDb):
            return  # no other process can reach it
        with self._mutex:
            watched = self._watching.setdefault(loop, set())
        if db.identity not in watched:
            watched.add(db.identity)
            loop.call_later(POLL_SECONDS, self._poll, db, loop)

    def _poll(self, db: Db, loop: asyncio.AbstractEventLoop) -> None:
        self._watching[loop].discard(db.identity)
        runs = [
            run
            for tree, at in list(self._trees.values())
            if at is loop and tree.request.db.identity == db.identity
            for run in tree.runs
            if run.task is not None and not run.task.done()
        ]
        if runs:
            task = loop.create_task(self._ask(db, runs))
            task.add_done_callback(lambda _: self._watch(db, loop))

    async def _ask(self, db: Db, runs: list[Run]) -> None:
        try:
            wanted = await db.cancel_requested([run.run_id for run in runs])
        except StoreError as error:
            log.warning("could not ask for requests to cancel: %s", error)
            return
        for run in runs:
            if run.run_id in wanted:
                run.stop()


active_runs = ActiveRuns()
