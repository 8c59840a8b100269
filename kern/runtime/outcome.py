"""One call of a tool and what it comes to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Self

from pydantic_core import from_json

from kern._json import finite, jsonable
from kern.errors import ToolError
from kern.messages import MEDIA, Media, Shelf, ToolCall, media_by_kind
from kern.run.tool_execution import ToolExecution
from kern.runtime.out import Answer
from kern.state.turn_order import TurnSlot


@dataclass(slots=True, frozen=True)
class ToolOutcome:
    """What a tool call came to.

    Args:
        content: The text for the model.
        error: It is an error text.
        stop: The run ends with this turn.
        pending: It waits for a person; the run pauses once the other calls of the turn are done.
        answer: The run ends with this turn, and this is its answer.
        not_streamed: The answer has not been streamed to a text-only consumer yet.
        media: Pictures and other things that came with the text.
        media_in_text: They are mentioned in the text, and the model is not sent them.
        show: The text is part of the run's content.
    """

    content: str
    error: bool = False
    stop: bool = False
    pending: bool = False
    answer: Answer | None = None
    not_streamed: bool = False
    media: Sequence[Media] = ()
    media_in_text: bool = False
    show: bool = False

    def to_dict(self, shelf: Shelf) -> dict[str, Any]:
        """The outcome as JSON; its media are on the shelf."""
        data: dict[str, Any] = {"content": self.content}
        data.update({key: True for key, name in _FLAGS.items() if getattr(self, name)})
        if self.answer is not None:
            data["answer"] = {
                "content": jsonable(self.answer.content),
                "content_type": self.answer.content_type,
            }
            if self.answer.last_turn is not None:
                data["answer"]["last_turn"] = self.answer.last_turn
        for name, items in media_by_kind(self.media).items():
            data[name] = [item.to_dict(shelf) for item in items]
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The reverse of `to_dict`."""
        return cls(
            data["content"],
            **{name: True for key, name in _FLAGS.items() if key in data},
            answer=Answer(**data["answer"]) if "answer" in data else None,
            media=[kind.from_dict(item) for name, kind in MEDIA.items() for item in data.get(name, ())],
        )


_STORED_AS = {"not_streamed": "not_streamed", "media_in_text": "media_in_text"}
"""Flags whose key in a stored row differs from their name: rows of version 0.2 must stay readable."""

_FLAGS = {
    _STORED_AS.get(flag.name, flag.name): flag.name for flag in fields(ToolOutcome) if flag.default is False
}


class Start:
    """Whether the application's part of a call has begun: decided once, whichever thread comes first."""

    __slots__ = ("_begun", "_open")

    def __init__(self) -> None:
        self._open = [True]  # popping is one step for all threads
        self._begun = False

    def begin(self) -> None:
        """It begins now, if it has not yet.

        Raises:
            ToolError: The run has ended meanwhile, and has noted that the call was not made.
        """
        if self._begun:
            return
        try:
            self._begun = self._open.pop()
        except IndexError:
            raise ToolError("the run ended before this call began") from None

    def prevent(self) -> bool:
        """It has not begun, and cannot any more."""
        try:
            return self._open.pop()
        except IndexError:
            return False


@dataclass(slots=True, frozen=True)
class CallSite:
    """One call that the model asks for, on its way to an outcome.

    Args:
        call: As the model wrote it.
        execution: The record of it, which the tool may add to.
        alone: It is the only call of its turn, and no hook can change what it comes to.
        slot: The place in its turn of a call that may touch the session state; None if no other call of the
            turn may.
        start: Says to a run that is cut short whether the call was made.
    """

    call: ToolCall
    execution: ToolExecution
    alone: bool = False
    slot: TurnSlot | None = None
    start: Start = field(default_factory=Start)


def arguments_of(call: ToolCall) -> dict[str, Any] | None:
    """The arguments of a call, parsed; None where they are no JSON object.

    NaN and infinities are null here, for people are shown JSON; a function that is called refuses them.
    """
    try:
        parsed = from_json(call.arguments or "{}")
    except ValueError:
        return None
    return finite(parsed) if isinstance(parsed, dict) else None


class StatefulTool:
    """A tool whose functions may touch the session state: those calls of one turn do so in their order.

    Args:
        touches_state: One of its functions takes a `run_context`.
    """

    __slots__ = ("touches_state",)

    def __init__(self, *, touches_state: bool) -> None:
        self.touches_state: bool = touches_state
