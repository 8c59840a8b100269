"""The summary of a session that a run has written, and no commit yet."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Final, Protocol

from kern._sync.lock import FairLock
from kern.db.base import RunRow


class NewSummary:
    """A summary that the next commit writes. The runs of a session write theirs one after the other, so that
    each goes on from the one before.
    """

    __slots__ = ("bases", "by", "text", "turn")

    def __init__(self) -> None:
        self.text: str | None = None
        self.bases: frozenset[str | None] = frozenset()
        """The summaries that it goes on from; of another one that is stored meanwhile, it knows nothing."""
        self.by: str | None = None
        """The run that wrote it."""
        self.turn: FairLock = FairLock()
        """Held while a run reads the old summary and writes the new one."""

    def set(self, text: str, stored: str | None, by: str) -> None:
        """Note a new summary.

        Args:
            text: The summary.
            stored: The stored summary, when the old one was read.
            by: The run that wrote it.
        """
        self.bases |= {stored, self.text}
        self.text, self.by = text, by

    def written(self, text: str | None) -> None:
        """Note that a commit has written it."""
        if self.text == text:
            self._forget()

    def undo(self, runs: Sequence[RunRow]) -> None:
        """Note that these runs are not stored. A summary of another run stays, for that run's commit."""
        if any(run.run_id == self.by for run in runs):
            self._forget()

    def _forget(self) -> None:
        self.text, self.by, self.bases = None, None, frozenset()


NO_SUMMARY: Final = NewSummary()
"""In place of a summary of one's own: most sessions have none, and a run makes an object for its session."""

_mutex = threading.Lock()


class _Session(Protocol):
    summary: NewSummary


def summary_of(session: _Session) -> NewSummary:
    """The summary of this session, made on first use."""
    with _mutex:
        if session.summary is NO_SUMMARY:
            session.summary = NewSummary()
        return session.summary
