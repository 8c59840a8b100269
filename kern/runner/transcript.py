"""A stored run as a part of the history: for the prompt of a later run, and for people.

A run that was cancelled, failed or is paused appears as its question, its calls with their results, the text
that was shown, and one line that says how it ended. Texts that a check refused do not appear.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from kern.messages import MEDIA, Message, ToolCall
from kern.run.output import AnyRunOutput, RunStatus
from kern.run.tool_execution import ToolExecution
from kern.runtime.interrupted import NOT_DECIDED

_NOT_BEGUN = "[This call was not carried out.]"
_EMPTY = "[The answer was empty.]"  # many servers require alternating roles, and refuse empty messages
_NO_RESULT = "[The run ended before this call did; it may have acted all the same.]"
_FOLLOWS = "[This is the answer, which follows.]"
_LEFT_OUT = "[A request whose answer was refused by a check is left out here.]"


@dataclass(slots=True, frozen=True)
class RunTranscript:
    """One run as a part of the history.

    Args:
        opening: The messages before the question: an introduction.
        question: The input of the run, without additions of the application.
        steps: The tool calls, each with a result.
        closing: The last message of the run; None if there is none, or it is one of the steps.
        content: The whole answer as text, as it was shown.
        media: The media of the answer, by the names in `MEDIA`.
        ending: How the run ended, if it did not complete.
        refused: A check refused the input or the answer; the question is left out, too.
    """

    opening: Sequence[Message] = ()
    question: Sequence[Message] = ()
    steps: Sequence[Message] = ()
    closing: Message | None = None
    content: str = ""
    media: Mapping[str, Any] = field(default_factory=dict)
    ending: str | None = None
    refused: bool = False

    @property
    def belongs_to_history(self) -> bool:
        """Whether the run belongs to the history: not if it ended before any text or call."""
        return self.ending is None or bool(self.steps or self.content)

    def messages(self) -> list[Message]:
        """Return the messages of the run, with its tool calls."""
        if not self.belongs_to_history:
            return []
        closing = [self.closing] if self.closing is not None else []
        return [*self.opening, *self.question, *self.steps, *closing]

    def prompt(self) -> list[Message]:
        """Return the messages for the prompt of a later run, with a line on how the run ended."""
        if not self.belongs_to_history:
            return []
        if self.ending is None:
            closing = self.closing
            if closing is None or not (closing.content or closing.commentary or closing.media):
                closing = Message("assistant", _EMPTY)
            return [*self.opening, *self.question, *self.steps, closing]
        question = [Message("user", _LEFT_OUT)] if self.refused else self.question
        said = self.closing.content if self.closing is not None else None
        closing = Message("assistant", f"{said}\n\n{self.ending}" if said else self.ending)
        return [*self.opening, *question, *self.steps, closing]

    def chat(self) -> list[Message]:
        """Return what people have seen: the question, and the whole answer as one message."""
        if not self.belongs_to_history:
            return []
        given = (*self.opening, *self.question)
        said = [m for m in given if m.role == "user" or (m.role == "assistant" and m.content)]
        if self.content or self.media:
            closing = (self.closing or Message("assistant")).plain()
            said.append(replace(closing, content=self.content or None, commentary=None, **self.media))
        return said

    def lines(self) -> list[dict[str, str]]:
        """Return the chat as texts for a model, how the run ended, and the results of its tools."""
        lines = [{"role": m.role, "content": m.content} for m in self.chat() if m.content]
        if self.belongs_to_history and self.ending is not None:
            acted = [f"{m.tool_name}: {m.content}" for m in self.steps if m.role == "tool"]
            note = "\n".join([self.ending, *acted])
            if self.content:
                lines[-1]["content"] += f"\n\n{note}"
            else:
                lines.append({"role": "assistant", "content": note})
        return lines

    def asked(self) -> str:
        """Return the question as text."""
        return "\n".join(message.content for message in self.question if message.content)

    def answered(self) -> str:
        """Return the answer as text, with how the run ended if it did not complete."""
        return "\n\n".join(text for text in (self.content, self.ending) if text)


def transcript_of(output: AnyRunOutput) -> RunTranscript:
    """Make the transcript of the run with this output."""
    said = [m for m in output.messages if m.role not in ("system", "developer") and not m.from_history]
    # Messages after the last one of the user are the run's own. Corrections (said == "") are not the user's.
    asked_until = max((at for at, m in enumerate(said, 1) if m.role == "user" and m.said != ""), default=0)
    given, own = [_words(m) for m in said[:asked_until] if m.said != ""], said[asked_until:]
    spoken_at = next((at for at, m in enumerate(given) if m.role == "user"), len(given))
    opening, question = given[:spoken_at], given[spoken_at:]
    steps = list(_steps(own, output))
    if output.status is RunStatus.completed:
        return _completed(output, opening, question, steps, own)
    refused = _refused(output)
    if refused is not None:
        return RunTranscript(opening, steps=steps, ending=_ending(output), refused=True)
    content = output.get_content_as_string()
    closing = _last(own) if content else None
    return RunTranscript(opening, question, steps, closing, content, _media(output), _ending(output))


def _completed(
    output: AnyRunOutput,
    opening: list[Message],
    question: list[Message],
    steps: list[Message],
    own: list[Message],
) -> RunTranscript:
    content, closing = output.get_content_as_string(), _last(own)
    if closing is None:  # the answer came from a tool, a team member or a hook
        text = output.last_turn or content
        closing = Message("assistant", text) if text else None
        steps = [_pointing(message, text) for message in steps]
    return RunTranscript(opening, question, steps, closing, content, _media(output))


def _words(message: Message) -> Message:
    return message if message.said is None else replace(message, content=message.said, said=None)


def _last(own: Sequence[Message]) -> Message | None:
    """Return the last message of the run, if it is a text of the model."""
    last = own[-1] if own else None
    if last is None or last.role != "assistant" or last.tool_calls:
        return None
    said = last.content or last.commentary or last.provider_data or last.media
    return last if said or any(part.provider_data for part in last.parts) else None


def _steps(own: Sequence[Message], output: AnyRunOutput) -> Iterator[Message]:
    """Yield the calls of each turn, followed by their results; without answers that were sent back."""
    results = {m.tool_call_id: m for m in own if m.role == "tool"}
    made = {execution.tool_call_id: execution for execution in output.tools}
    for at, message in enumerate(own):
        if message.role != "assistant":
            continue
        if message.provider_calls and own[at + 1 :] and own[at + 1].role == "assistant":
            yield message  # the provider's own tools ran, and the answer continues in the next message
        if message.tool_calls:
            yield message
            for call in message.tool_calls:
                yield results.get(call.id) or _result(call, made.get(call.id), output.status)


def _result(call: ToolCall, made: ToolExecution | None, status: RunStatus) -> Message:
    """Make a result for a call whose result the model never got."""
    if made is not None and made.result is not None:
        text = made.result
    elif status is RunStatus.paused:
        text = NOT_DECIDED
    else:
        text = _NOT_BEGUN if made is None else _NO_RESULT
    failed = made is None or made.result is None or made.tool_call_error
    return Message("tool", text, tool_call_id=call.id, tool_name=call.name, tool_call_error=failed)


def _pointing(message: Message, answer: str) -> Message:
    """Replace a tool result that was the answer: the answer itself follows."""
    result = message.content
    if message.role != "tool" or not result or result not in answer:
        return message
    is_answer = message.stop_after_tool_call or result == answer
    return replace(message, content=_FOLLOWS) if is_answer else message


def _media(output: AnyRunOutput) -> dict[str, Any]:
    return {name: items for name in MEDIA if (items := getattr(output, name))}


def _refused(output: AnyRunOutput) -> str | None:
    """Return what a check refused, "input" or "output". Rows of version 0.1 have the error type only."""
    return output.refused or {"InputCheckError": "input", "OutputCheckError": "output"}.get(
        output.error_type or ""
    )


def _ending(output: AnyRunOutput) -> str:
    if _refused(output):
        return "[The answer was refused by a check.]"
    if output.status is RunStatus.paused:
        return "[The run waits for a person and has not answered yet.]"
    how = "was cancelled" if output.status is RunStatus.cancelled else f"failed with {output.error_type}"
    return f"[The run {how} before its answer was complete.]"
