"""One tool call and its outcome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Self

from pydantic_core import from_json

from kern._json import SURELY_FLAT, check_depth, finite, jsonable
from kern.errors import KernError, ToolError
from kern.messages import MEDIA, Media, Shelf, ToolCall, check_types, media_by_kind
from kern.run.tool_execution import ToolExecution
from kern.runtime.out import Answer
from kern.state.turn_order import TurnSlot


@dataclass(slots=True, frozen=True)
class ToolOutcome:
    """The outcome of a tool call.

    Args:
        content: The text for the model.
        error: The text is an error.
        stop: The run ends with this turn.
        pending: The call waits for a person; the run pauses when the other calls of the turn have ended.
        answer: The answer of the run, which ends with this turn.
        not_streamed: The answer has not been streamed to a text-only consumer yet.
        media: Images and other media of the result.
        media_in_text: The text mentions the media, and they are not sent to the model.
        show: The text is a part of the run's content.
        hidden: The text is no part of it, though the run ends with this turn.
        failure: Ends the run, when the call is on record.
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
    hidden: bool = False
    failure: KernError | None = None

    def to_dict(self, shelf: Shelf) -> dict[str, Any]:
        """Return the outcome as JSON; `shelf` receives the bytes of its media, by their hashes."""
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
        """Undo `to_dict`.

        Raises:
            ValueError: The content is not a str.
        """
        check_types("outcome", data, {"content": str})
        flags: dict[str, Any] = {name: True for key, name in _FLAGS.items() if key in data}
        return cls(
            data["content"],
            **flags,
            answer=Answer(**data["answer"]) if "answer" in data else None,
            media=[kind.from_dict(item) for name, kind in MEDIA.items() for item in data.get(name, ())],
        )


_STORED_AS = {"not_streamed": "not_streamed", "media_in_text": "media_in_text"}
"""The keys of flags in a stored row, where they differ: rows of version 0.2 must stay readable."""

_FLAGS = {
    _STORED_AS.get(flag.name, flag.name): flag.name for flag in fields(ToolOutcome) if flag.default is False
}


class Start:
    """Decides once, across threads, whether the application's part of a call has begun."""

    __slots__ = ("_begun", "_open")

    def __init__(self) -> None:
        self._open = [True]  # `pop` is atomic
        self._begun = False

    def begin(self) -> None:
        """Note that it begins.

        Raises:
            ToolError: The run has ended, and has noted that the call was not made.
        """
        if self._begun:
            return
        try:
            self._begun = self._open.pop()
        except IndexError:
            raise ToolError("the run ended before this call began") from None

    def prevent(self) -> bool:
        """Prevent it from beginning. Return False if it has begun."""
        try:
            return self._open.pop()
        except IndexError:
            return False


@dataclass(slots=True, frozen=True)
class CallSite:
    """One tool call of the model, while it is carried out.

    Args:
        call: The call as the model wrote it.
        execution: The record of the call in the output; the tool may fill in fields.
        alone: It is the only call of its turn, and no hook can change its outcome.
        slot: Its place among the calls of the turn that may touch the session state; None if it is the only
            one, or does not.
        start: Tells a run that is cut short whether the call was made.
    """

    call: ToolCall
    execution: ToolExecution
    alone: bool = False
    slot: TurnSlot | None = None
    start: Start = field(default_factory=Start)


def arguments_of(call: ToolCall) -> dict[str, Any] | None:
    """Parse the arguments of a call; None if they are not a JSON object, or too deep to be stored.

    NaN and infinities become null, since the arguments are shown as JSON; the call itself refuses them.
    """
    try:
        parsed = from_json(call.arguments or "{}")
        if len(call.arguments) > SURELY_FLAT:
            check_depth(call.arguments.encode(errors="replace"))
    except ValueError:
        return None
    return finite(parsed) if isinstance(parsed, dict) else None


class StatefulTool:
    """A tool that may touch the session state. Its calls in one turn get the state in the order of the calls.

    Args:
        touches_state: The function, or one of its hooks, takes a `run_context`.
    """

    __slots__ = ("touches_state",)

    def __init__(self, *, touches_state: bool) -> None:
        self.touches_state: bool = touches_state
