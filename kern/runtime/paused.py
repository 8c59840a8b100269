"""What the row of a paused run holds beside its output: all that it takes to go on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

from kern._json import jsonable
from kern.db.base import RunRow
from kern.messages import MEDIA, Message, Shelf, check_types, media_by_kind
from kern.run.output import RunOutput, RunStatus, TeamRunOutput, output_from_dict
from kern.runtime.ending import open_results
from kern.runtime.outcome import Answer, ToolOutcome
from kern.runtime.request import RunInput
from kern.runtime.run import Run
from kern.runtime.stored import reading
from kern.usage import Metrics

_LATE_EVENTS = 1000
"""Room in the numbers of events for those that come after a pause was stored, before the run goes on."""


def row_extras(run: Run, shelf: Shelf) -> dict[str, Any]:
    """What the row of a run holds beside its output: of a paused one, all that it takes to go on.

    Args:
        run: The run.
        shelf: Takes the bytes of pictures and other media.
    """
    extras: dict[str, Any] = {}
    if run.output.status is RunStatus.paused:
        extras["paused"] = {
            "input": [message.to_dict(shelf) for message in run.input.messages],
            "messages": [message.to_dict(shelf) for message in run.messages],
            "own": run.own.to_dict(),
            "settled": {call_id: _outcome_to_dict(item, shelf) for call_id, item in run.settled.items()},
            "spoken": run.out.to_list(),
            "sent_back": dict(run.sent_back),
            "requests": run.requests,
            "seq": run.tree.audience.number_after(_LATE_EVENTS),
        }
        # What is stored as the conversation is whole, so that other runs can be told of it meanwhile.
        conversation = [*run.output.messages, *open_results(run)]
        extras["messages"] = [message.to_dict(shelf) for message in conversation]
    if run.spec.stores_children:
        extras["member_responses"] = [child.output.to_dict(shelf) for child in run.children]
    return extras


@dataclass(slots=True, frozen=True, kw_only=True)
class Paused:
    """A paused run, as its row holds it.

    Args:
        own: What the run has used itself.
        requests: How many requests it has made.
        seq: The number of its next event.
    """

    output: RunOutput | TeamRunOutput
    input: RunInput
    messages: list[Message]
    own: Metrics
    requests: int
    settled: dict[str, ToolOutcome]
    spoken: Sequence[Sequence[str]]
    sent_back: Counter[str]
    seq: int


def paused_of(row: RunRow) -> Paused:
    """The paused run of a row; its media do not have their bytes yet.

    Raises:
        StoreError: The row cannot be read.
    """
    with reading(row):
        data = from_json(row.data)
        record = data["paused"]
        check_types("paused", record, _TYPES)
        own = Metrics.from_dict(record["own"])
        sent_back = Counter({str(who): int(times) for who, times in record["sent_back"].items()})
        messages = [Message.from_dict(item) for item in record["messages"]]
        if not messages:
            raise ValueError("paused: it has no messages")
        return Paused(
            output=output_from_dict(data),
            input=RunInput(
                value=data.get("input"), messages=[Message.from_dict(item) for item in record["input"]]
            ),
            messages=messages,
            own=own,
            requests=record.get("requests", own.requests),  # older rows do not count those that failed
            settled={call_id: _outcome_from_dict(item) for call_id, item in record["settled"].items()},
            spoken=_spoken(record),
            sent_back=sent_back,
            seq=record["seq"],
        )


_TYPES: Mapping[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("input", "messages", "spoken", "shown_results"), list),
    **dict.fromkeys(("own", "settled", "sent_back"), dict),
    **dict.fromkeys(("requests", "seq"), int),
}


def _spoken(record: Mapping[str, Any]) -> list[list[str]]:
    parts: list[Any] = record.get("spoken") or [[text, text] for text in record.get("shown_results", ())]
    if any(not isinstance(text, str) or not isinstance(kept, str) for text, kept in parts):
        raise ValueError("paused: spoken is a list of pairs of texts")
    return [list(part) for part in parts]


_FLAGS = ("error", "stop", "unheard", "show", "media_told")


def _outcome_to_dict(outcome: ToolOutcome, shelf: Shelf) -> dict[str, Any]:
    data: dict[str, Any] = {"content": outcome.content}
    data.update({name: True for name in _FLAGS if getattr(outcome, name)})
    if outcome.answer is not None:
        content = jsonable(outcome.answer.content)
        data["answer"] = {"content": content, "content_type": outcome.answer.content_type}
        if outcome.answer.last_turn is not None:
            data["answer"]["last_turn"] = outcome.answer.last_turn
    for name, items in media_by_kind(outcome.media).items():
        data[name] = [item.to_dict(shelf) for item in items]
    return data


def _outcome_from_dict(data: Mapping[str, Any]) -> ToolOutcome:
    return ToolOutcome(
        data["content"],
        **{name: True for name in _FLAGS if name in data},
        answer=Answer(**data["answer"]) if "answer" in data else None,
        media=[kind.from_dict(item) for name, kind in MEDIA.items() for item in data.get(name, ())],
    )
