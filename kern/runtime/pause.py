"""A pause as one value: everything that a paused run needs to be continued, as its row stores it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from kern.db.base import RunRow
from kern.durable.db_journal import DbJournal
from kern.messages import Media, Message, Shelf, check_types
from kern.run.output import AnyRunOutput, RunStatus, output_from_dict
from kern.runtime.interrupted import results_of_open_calls
from kern.runtime.progress import Progress
from kern.runtime.run_tree import Run
from kern.runtime.stored_runs import media_of, reading, row_json

_LATE_EVENTS = 1000
"""Numbers (`seq`) left free for events that are emitted after a pause was stored."""

_TYPES: Mapping[str, type] = {
    **dict.fromkeys(("input", "messages", "spoken", "shown_results"), list),
    "seq": int,
}


@dataclass(slots=True, frozen=True, kw_only=True)
class Pause:
    """A run that waits for a person.

    Args:
        output: The output so far.
        input: The messages of the input.
        messages: The conversation, up to the calls that wait.
        progress: The counts and the outcomes of calls so far.
        spoken: The parts of the answer so far, as in `AnswerText`.
        seq: The `seq` after which the events of the next part are numbered.
    """

    output: AnyRunOutput
    input: list[Message]
    messages: list[Message]
    progress: Progress
    spoken: list[list[str]]
    seq: int

    @classmethod
    def of(cls, run: Run) -> Self:
        """Make the pause of a run that has just paused."""
        return cls(
            output=run.output,
            input=run.input.messages,
            messages=run.messages,
            progress=run.progress,
            spoken=run.out.to_list(),
            seq=run.tree.audience.number_after(_LATE_EVENTS),
        )

    def to_dict(self, shelf: Shelf) -> dict[str, Any]:
        """Return what the row stores in addition to the output, as JSON."""
        return {
            "input": [message.to_dict(shelf) for message in self.input],
            "messages": [message.to_dict(shelf) for message in self.messages],
            **self.progress.to_dict(shelf),
            "spoken": self.spoken,
            "seq": self.seq,
        }

    @classmethod
    def from_row(cls, row: RunRow) -> Self:
        """Read the pause from a row. Its media do not have their bytes yet.

        Raises:
            StoreError: The row cannot be read.
        """
        with reading(row):
            data = row_json(row)
            return cls.from_dict(data["paused"], output_from_dict(data))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], output: AnyRunOutput) -> Self:
        """Undo `to_dict`.

        Raises:
            ValueError: A value is of the wrong type.
        """
        check_types("paused", data, _TYPES)
        messages = [Message.from_dict(item) for item in data["messages"]]
        if not messages:
            raise ValueError("paused: it has no messages")
        return cls(
            output=output,
            input=[Message.from_dict(item) for item in data["input"]],
            messages=messages,
            progress=Progress.from_dict(data, output, messages),
            spoken=_spoken(data),
            seq=data["seq"],
        )

    @property
    def media(self) -> list[Media]:
        """All media of the pause."""
        of_messages = [media for message in (*self.messages, *self.input) for media in message.media]
        of_calls = [media for outcome in self.progress.finished_calls.values() for media in outcome.media]
        return [*of_messages, *of_calls, *media_of(self.output)]


def _spoken(data: Mapping[str, Any]) -> list[list[str]]:
    parts: Any = data.get("spoken") or [[text, text] for text in data.get("shown_results", ())]
    if any(not isinstance(text, str) or not isinstance(kept, str) for text, kept in parts):
        raise ValueError("paused: spoken must be a list of pairs of str")
    return [list(part) for part in parts]


def row_extras(run: Run, shelf: Shelf) -> dict[str, Any]:
    """Return what the row of a run stores in addition to its output, such as the pause of a paused run.

    Args:
        run: The run.
        shelf: Receives the bytes of media, by their hashes.
    """
    extras: dict[str, Any] = {}
    if run.output.status is RunStatus.paused:
        extras["paused"] = Pause.of(run).to_dict(shelf)
        if isinstance(run.tree.request.journal, DbJournal):
            extras["journaled"] = True  # the continuation uses the journal, too
        # The stored conversation has results for all calls, so that it can be used as history meanwhile.
        conversation = [*run.output.messages, *results_of_open_calls(run)]
        extras["messages"] = [message.to_dict(shelf) for message in conversation]
    if run.spec.stores_children:
        extras["member_responses"] = [child.output.to_dict(shelf) for child in run.children]
    return extras
