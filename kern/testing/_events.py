"""The common part of the protocols' encoders: an answer in deltas, and events that a fault can hit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Literal, NamedTuple

from kern.messages import ToolCall
from kern.testing.answers import Answer, words
from kern.testing.request import ReceivedRequest
from kern.usage import Usage

_ARGUMENT_PIECE = 6
"""Characters in a delta of arguments: about what the real API sends."""


class Event(NamedTuple):
    """One event of a stream, as its bytes.

    `kind` tells what a fault may hit: a "delta" counts, an "end" is the first event of the answer's own end.
    """

    data: bytes
    kind: Literal["frame", "delta", "end"] = "frame"


@dataclass(slots=True, frozen=True)
class Deltas:
    """An answer in deltas; `text` is None if it has no text."""

    reasoning: Sequence[str]
    text: Sequence[str] | None
    calls: Sequence[tuple[ToolCall, Sequence[str]]]
    interleave: bool = False

    @property
    def count(self) -> int:
        """The number of deltas."""
        return len(self.reasoning) + len(self.text or ()) + sum(len(pieces) for _, pieces in self.calls)

    @property
    def reasoning_text(self) -> str:
        """All of the reasoning."""
        return "".join(self.reasoning)

    @property
    def content(self) -> str | None:
        """All of the text."""
        return None if self.text is None else "".join(self.text)

    def argument_order(self) -> Iterator[tuple[int, str]]:
        """The deltas of all calls' arguments, each with its call's number, in the order they are sent."""
        if not self.interleave:
            for index, (_, pieces) in enumerate(self.calls):
                yield from ((index, piece) for piece in pieces)
            return
        for turn in zip_longest(*(pieces for _, pieces in self.calls)):
            yield from ((index, piece) for index, piece in enumerate(turn) if piece is not None)

    def limited(self, count: int) -> Deltas:
        """The first `count` deltas; the call at the limit has half of its arguments, later ones are gone."""
        reasoning = self.reasoning[:count]
        left = count - len(reasoning)
        text = self.text if self.text is None else self.text[:left]
        left -= len(text or ())
        calls = []
        for call, pieces in self.calls:
            if left <= 0:
                break
            calls.append((call, pieces[:left]))
            left -= len(pieces)
        return replace(self, reasoning=reasoning, text=text, calls=calls)


def deltas_of(answer: Answer) -> Deltas:
    """The answer in deltas, ended early if its fault says so."""
    text: Sequence[str] | None = None
    if answer.text is not None or not answer.tool_calls:
        text = answer.pieces if answer.pieces is not None else words(answer.text or "")
    calls = [
        (
            call,
            [call.arguments[i : i + _ARGUMENT_PIECE] for i in range(0, len(call.arguments), _ARGUMENT_PIECE)],
        )
        for call in answer.tool_calls
    ]
    deltas = Deltas(words(answer.reasoning or ""), text, calls, answer.interleave)
    fault = answer.fault
    return deltas.limited(fault.after) if fault is not None and fault.kind == "incomplete" else deltas


def usage_of(answer: Answer, deltas: Deltas, request: ReceivedRequest) -> Usage:
    """The usage that the answer reports: its own figures, or a rough count."""
    if answer.usage is not None:
        return answer.usage
    heard = sum(len(words(message.content or "")) for message in request.messages)
    return Usage(
        input_tokens=heard,
        output_tokens=deltas.count,
        total_tokens=heard + deltas.count,
        reasoning_tokens=len(deltas.reasoning),
        requests=1,
    )


def strike_index(events: Sequence[Event], after: int) -> int:
    """The index of the event that a fault hits: delta number `after`, or the end if there are fewer."""
    seen = 0
    for index, event in enumerate(events):
        if event.kind == "end" or (event.kind == "delta" and seen == after):
            return index
        seen += event.kind == "delta"
    return len(events)
