"""The summary of a session that a run has written, and no commit yet."""

from __future__ import annotations

import threading
from typing import Final, Protocol

from kern._sync.lock import FairLock


class NewSummary:
    """A summary that the next commit writes. The runs of a session write theirs one after the other, so that
    each goes on from the one before.
    """

    __slots__ = ("bases", "text", "turn")

    def __init__(self) -> None:
        self.text: str | None = None
        self.bases: frozenset[str | None] = frozenset()
        """The summaries that it goes on from; of another one that is stored meanwhile, it knows nothing."""
        self.turn: FairLock = FairLock()
        """Held while a run reads the old summary and writes the new one."""

    def set(self, text: str, stored: str | None) -> None:
        """Note a new summary.

        Args:
            text: The summary.
            stored: The stored summary, when the old one was read.
        """
        self.bases |= {stored, self.text}
        self.text = text

    def written(self, text: str | None) -> None:
        """Note that a commit has written it."""
        if self.text == text:
            self.drop()

    def drop(self) -> None:
        """Forget it."""
        self.text, self.bases = None, frozenset()


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
