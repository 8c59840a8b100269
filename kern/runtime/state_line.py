"""The commits to the session state during one run with a journal, in order, from its initial state on.

A run that is resumed or replayed begins with that state again, and makes each recorded commit in its turn.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from difflib import unified_diff
from typing import Any

from kern._json import json_bytes
from kern.db.base import ChangeRow
from kern.durable.journal import Entry, Playback
from kern.durable.keys import EnvironmentKeys, same
from kern.errors import ReplayMismatch, SessionDeletedError
from kern.run.requirement import RunRequirement
from kern.runtime.session import LiveSession
from kern.runtime.step_data import CHANGE, Data, change_entry, change_from, loads, moment, reading, written
from kern.state.codec import decode, encode
from kern.state.patch import apply
from kern.state.shared_state import MERGE, Author, Change

STALE = -1
"""A version that no stored row has: the database then reads the row before a commit."""


class StateLine:
    """The commits of one run.

    Args:
        entries: The recorded entries.
        playback: How they are used.
        changed: Called with each commit that is not recorded yet, from any thread.
        run_id: The id of the run, for errors.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        playback: Playback,
        changed: Callable[[Change], None],
        run_id: str,
    ) -> None:
        self._playback = playback
        self._changed = changed
        self._run_id = run_id
        self._recorded = [change_from(entry, run_id) for entry in entries if entry.kind == CHANGE]
        self._base: Data | None = None
        for entry in entries:
            if entry.kind == "base":
                self._base = _base_from(entry, run_id)
        self._session: LiveSession | None = None
        self._made = 0
        """How many recorded commits have been made again."""
        self._stored = 0
        """How many of the recorded commits the database has already."""
        self._count = len(self._recorded)
        """How many commits are recorded, including those of this process."""
        self._seen = 0
        """How many commits have been made, including recorded ones that were made again."""
        self.since: float = time.time() if self._base is None else self._base.get("at", 0.0)
        """When the run first began, in seconds since the epoch."""

    async def open(self, session: LiveSession, about: Data) -> Entry | None:
        """Restore the session as it was when the run began.

        Args:
            session: The loaded session, of which the run has exclusive use.
            about: More facts to record with the beginning.

        Returns:
            The entry to record if the run begins now, or None.

        Raises:
            ReplayMismatch: The session has another state than the recorded one.
            SessionDeletedError: The session was deleted meanwhile.
        """
        live, base = session.state, self._base
        entry: Entry | None = None
        if base is None:
            data = {
                "at": self.since,
                **about,
                "state": decode(live.text),
                "revision": live.revision,
                "state_version": session.version,
                "stored": session.stored,
                "generation": session.row.generation,
            }
            self._base = data
            entry = Entry("base", "base", written(data, "the input or the session state"))
        else:
            await self._restore(session, base)
        self._session = session
        live.subscribe(self._on_change, lambda text, revision: None)
        return entry

    def close(self) -> None:
        """Stop following the session's commits: the run has ended."""
        if self._session is not None:
            self._session.state.unsubscribe(self._on_change)

    def replay(self, entry: Entry) -> None:
        """Make a recorded commit again."""
        assert self._session is not None
        change = self._recorded[self._made]
        self._made += 1
        self._seen += 1
        with reading(f"{self._run_id}/change/{self._made - 1}"):
            self._session.state.replay(change, stored=self._made <= self._stored, except_for=self._on_change)

    def entry_of(self, change: Change) -> Entry:
        """Make the next entry, for a commit that is not recorded yet."""
        self._count += 1
        return change_entry(self._count - 1, change)

    def made(self, author: Author) -> bool:
        """Whether a commit of that author is recorded."""
        return any(change.author == author for change in self._recorded)

    def now(self) -> tuple[int, dict[str, Any]]:
        """Return the number of commits so far, and the state after them."""
        assert self._session is not None
        seen, text = self._session.state.look(lambda text: (self._seen, text))
        return seen, decode(text)

    def state_at(self, commits: int) -> dict[str, Any]:
        """Return the state after that number of recorded commits."""
        assert self._base is not None
        tree: dict[str, Any] = decode(encode(self._base["state"])[0])
        for index, change in enumerate(self._recorded[:commits]):
            with reading(f"{self._run_id}/change/{index}"):
                tree = apply(tree, change.patch)
        return tree

    @property
    def answers(self) -> list[RunRequirement] | None:
        """The recorded answers, if the run was begun as the continuation of a paused run; else None.

        Raises:
            StoreError: The answers cannot be read.
        """
        if self._base is None or "answers" not in self._base:
            return None
        with reading(f"{self._run_id}/base"):
            return [RunRequirement.from_dict(answer) for answer in self._base["answers"]]

    @property
    def recorded_seq(self) -> int:
        """The `seq` of the last event before this part of the run."""
        recorded_seq: int = self._base.get("told", 0) if self._base is not None else 0
        return recorded_seq

    def recorded_state(self) -> tuple[dict[str, Any], int]:
        """Return the state after all recorded commits, and its revision."""
        assert self._base is not None
        commits = len(self._recorded)
        return self.state_at(commits), self._base["revision"] + commits

    def _on_change(self, change: Change) -> None:
        self._seen += 1
        self._changed(change)

    async def _restore(self, session: LiveSession, base: Data) -> None:
        live = session.state
        text = encode(base["state"])[0]
        durable = self._playback is Playback.resume
        if durable and base["stored"] and base["generation"] != session.row.generation:
            raise SessionDeletedError(session.session_id)
        if live.text == text and (not durable or live.revision == base["revision"]):
            return
        strict = self._playback is Playback.strict and session.stored == base["stored"]
        if strict and not same(base["state"], now := decode(live.text)):
            shown = _difference(base["state"], EnvironmentKeys().masked(now))
            raise ReplayMismatch(f"the session state at the start differs from the recorded one:\n{shown}")
        if durable and session.stored:
            self._stored = self._among(
                await session.db.load_changes(session.session_id, after=base["revision"])
            )
        row = session.row
        known = encode(self.state_at(self._stored))[0]
        session.row = replace(row, state=known, version=STALE if session.stored else row.version, position=0)
        live.reset(text, base["revision"])

    def _among(self, rows: Sequence[ChangeRow]) -> int:
        """Return how many of the recorded commits the database has, given the rows of its log."""
        stored = {(row.created_at, row.run_id, row.tool, row.tool_call_id) for row in rows}
        last = 0
        for number, change in enumerate(self._recorded, 1):
            author = change.author
            mark = (change.created_at, author.run_id, author.tool, author.tool_call_id)
            if mark in stored or author == MERGE:
                last = number
        return last


def _base_from(entry: Entry, run_id: str) -> Data:
    data = loads(entry, run_id)
    with reading(f"{run_id}/{entry.key}"):
        data["at"], data["revision"] = moment(data["at"]), int(data["revision"])
        data["told"] = int(data.get("told", 0))
        encode(data["state"])
        if not isinstance(data["state"], dict) or not isinstance(data["generation"], str | int | None):
            raise TypeError("state must be an object, and generation a str, an int or null")
        data["stored"] = bool(data["stored"])
    return data


def _difference(recorded: object, now: object) -> str:
    before, after = (json_bytes(tree, indent=2).decode().splitlines() for tree in (recorded, now))
    return "\n".join(unified_diff(before, after, "recorded", "now", lineterm="", n=2))
