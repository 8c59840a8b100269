"""A pause as one value: all that a paused run takes to go on, as its row holds it."""

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
"""Room in the numbers of events for those that come after a pause was stored, before the run goes on."""

_TYPES: Mapping[str, type] = {
    **dict.fromkeys(("input", "messages", "spoken", "shown_results"), list),
    "seq": int,
}


@dataclass(slots=True, frozen=True, kw_only=True)
class Pause:
    """A run that waits for a person.

    Args:
        output: What it has come to.
        input: The messages that it was given.
        messages: Its conversation, up to the calls that wait.
        progress: How far it has come.
        spoken: What it has said as its answer.
        seq: The number of its newest event.
    """

    output: AnyRunOutput
    input: list[Message]
    messages: list[Message]
    progress: Progress
    spoken: list[list[str]]
    seq: int

    @classmethod
    def of(cls, run: Run) -> Self:
        """The pause of a run that has just come to one."""
        return cls(
            output=run.output,
            input=run.input.messages,
            messages=run.messages,
            progress=run.progress,
            spoken=run.out.to_list(),
            seq=run.tree.audience.number_after(_LATE_EVENTS),
        )

    def to_dict(self, shelf: Shelf) -> dict[str, Any]:
        """What the row holds beside the output, as JSON."""
        return {
            "input": [message.to_dict(shelf) for message in self.input],
            "messages": [message.to_dict(shelf) for message in self.messages],
            **self.progress.to_dict(shelf),
            "spoken": self.spoken,
            "seq": self.seq,
        }

    @classmethod
    def from_row(cls, row: RunRow) -> Self:
        """The reverse, out of the row; its media do not have their bytes yet.

        Raises:
            StoreError: The row cannot be read.
        """
        with reading(row):
            data = row_json(row)
            return cls.from_dict(data["paused"], output_from_dict(data))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], output: AnyRunOutput) -> Self:
        """The reverse of `to_dict`.

        Raises:
            ValueError: A value is not of its type.
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
        """All media in it."""
        of_messages = [media for message in (*self.messages, *self.input) for media in message.media]
        of_calls = [media for outcome in self.progress.finished_calls.values() for media in outcome.media]
        return [*of_messages, *of_calls, *media_of(self.output)]


def _spoken(data: Mapping[str, Any]) -> list[list[str]]:
    parts: Any = data.get("spoken") or [[text, text] for text in data.get("shown_results", ())]
    if any(not isinstance(text, str) or not isinstance(kept, str) for text, kept in parts):
        raise ValueError("paused: spoken must be a list of pairs of str")
    return [list(part) for part in parts]


def row_extras(run: Run, shelf: Shelf) -> dict[str, Any]:
    """What the row of a run holds beside its output: of a paused one, all that it takes to go on.

    Args:
        run: The run.
        shelf: Takes the bytes of pictures and other media.
    """
    extras: dict[str, Any] = {}
    if run.output.status is RunStatus.paused:
        extras["paused"] = Pause.of(run).to_dict(shelf)
        if isinstance(run.tree.request.journal, DbJournal):
            extras["journaled"] = True  # who continues it goes on with the journal
        # What is stored as the conversation is whole, so that other runs can be told of it meanwhile.
        conversation = [*run.output.messages, *results_of_open_calls(run)]
        extras["messages"] = [message.to_dict(shelf) for message in conversation]
    if run.spec.stores_children:
        extras["member_responses"] = [child.output.to_dict(shelf) for child in run.children]
    return extras
