"""Collects what a tree of runs has done so far from its events. All views read this."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json

from kern._json import json_bytes
from kern.messages import ProviderCall
from kern.run.events import (
    BaseRunEvent,
    EventSource,
    ModelRequestStartedEvent,
    ModelRetryEvent,
    ProviderToolCallCompletedEvent,
    ProviderToolCallStartedEvent,
    ReasoningContentDeltaEvent,
    RunCancelledEvent,
    RunCompletedEvent,
    RunContentEvent,
    RunContinuedEvent,
    RunErrorEvent,
    RunPausedEvent,
    RunStartedEvent,
    ToolCallCompletedEvent,
    ToolCallStartedEvent,
)
from kern.run.output import AnyRunOutput, RunStatus, TeamRunOutput
from kern.run.requirement import RunRequirement
from kern.run.tool_execution import ToolExecution


class StreamedText:
    """Text that arrives in pieces, and is joined only when it is read.

    The texts of two turns are separated by a blank line. The pieces of an answer contain it, those of the
    reasoning do not. The text of the present turn can be taken back.
    """

    __slots__ = ("_arrived", "_text", "_turn")

    def __init__(self, text: str = "") -> None:
        self._text = text
        self._arrived: list[str] = []
        self._turn = 0

    def append(self, piece: str) -> str:
        """Add a piece; returns what was added, including a gap between two turns."""
        if not piece:
            return ""
        begins = self._turn and not self._arrived and len(self._text) == self._turn
        if begins and not piece.startswith("\n\n"):
            piece = "\n\n" + piece
        self._arrived.append(piece)
        return piece

    def start_turn(self) -> None:
        """Begin a new turn."""
        self._turn = len(self.text)

    def void_turn(self) -> None:
        """Take back the text of this turn."""
        self._text = self.text[: self._turn]

    @property
    def text(self) -> str:
        """The whole text."""
        if self._arrived:
            self._text += "".join(self._arrived)
            self._arrived.clear()
        return self._text

    @property
    def turn(self) -> str:
        """The text of this turn."""
        return self.text[self._turn :].lstrip("\n")

    def __bool__(self) -> bool:
        return bool(self._text or self._arrived)


@dataclass(slots=True)
class RunProgress:
    """One run: its texts, its tool calls and its outcome.

    Args:
        name: The name of the agent or team; for members of members, the names from below the top down.
        title: The name that the application has given, or None.
        id: The id of the agent or team.
        structured: The answer, if it is not text.
        started: Seconds since the epoch.
        calls: The tool calls in the order in which they began; ids may repeat from turn to turn.
        running: The calls in progress, by id.
        duration: Seconds; None while the run is in progress.
    """

    run_id: str
    name: str
    is_team: bool
    title: str = ""
    id: str = ""
    own_name: str = ""
    parent_run_id: str | None = None
    answer: StreamedText = field(default_factory=StreamedText)
    structured: Any = None
    printed_length: int = 0
    """How many characters of the answer were shown for good."""
    reasoning: StreamedText = field(default_factory=StreamedText)
    calls: list[ToolExecution] = field(default_factory=list)
    running: dict[str, ToolExecution] = field(default_factory=dict)
    requirements: list[RunRequirement] = field(default_factory=list)
    status: RunStatus = RunStatus.running
    error: str = ""
    started: float = field(default_factory=time.time)
    duration: float | None = None
    _places: dict[str, int] = field(default_factory=dict)

    @property
    def ended(self) -> bool:
        """Whether the run has ended or is paused."""
        return self.status is not RunStatus.running

    @property
    def completed(self) -> bool:
        """Whether the run has its answer."""
        return self.status is RunStatus.completed

    @property
    def elapsed(self) -> float:
        """Seconds since the run began, or its duration."""
        return max(0.0, time.time() - self.started) if self.duration is None else self.duration

    @property
    def unprinted(self) -> str:
        """The text of the answer that was not printed permanently yet."""
        return self.answer.text[self.printed_length :].lstrip("\n")

    @property
    def content(self) -> Any:
        """The answer: the structured value if there is one, otherwise the text that is left to show."""
        return self.unprinted if self.structured is None else self.structured

    def end_call(self, call: ToolExecution) -> None:
        """A call has ended; `call` may be another object than the one that began."""
        self.running.pop(call.tool_call_id, None)
        place = self._places.pop(call.tool_call_id, None)
        if place is None:
            self.calls.append(call)
        else:
            self.calls[place] = call

    def begin_call(self, call: ToolExecution) -> None:
        """A call has begun."""
        self._places[call.tool_call_id] = len(self.calls)
        self.calls.append(call)
        self.running[call.tool_call_id] = call

    def end(self, status: RunStatus, error: str = "", *, at: float | None = None) -> None:
        """Note the end of the run.

        Args:
            status: Its status.
            at: Seconds since the epoch; None: now.
        """
        self.status = status
        self.error = error or self.error
        if self.duration is None:
            self.duration = max(0.0, (time.time() if at is None else at) - self.started)
        self.running.clear()

    def finish(self, output: AnyRunOutput) -> None:
        """Take over the final output, which is more complete than the pieces that were streamed."""
        content = output.last_turn if output.content is None else output.content
        if content is not None:
            if not isinstance(content, str):
                self.structured = content
            elif not _holds(self.answer.text, content):
                if not content.startswith(self.answer.text[: self.printed_length]):
                    self.printed_length = 0
                self.answer = StreamedText(content)
        if output.reasoning_content and not self.reasoning:
            self.reasoning.append(output.reasoning_content)
        own = [message for message in output.messages if not message.from_history]
        by_provider = [call for message in own for call in message.provider_calls]
        ids = {call.id for call in by_provider}
        self.calls = [call for call in output.tools or self.calls if call.tool_call_id not in ids]
        self.calls += map(as_execution, by_provider)
        if output.metrics.duration is not None:
            self.duration = output.metrics.duration
        self.requirements = output.requirements or self.requirements
        pending = (RunStatus.pending, RunStatus.running)
        self.end(RunStatus.completed if output.status in pending else output.status, output.error or "")


def as_execution(call: ProviderCall) -> ToolExecution:
    """A call that the provider carried out, in the form of other tool calls."""
    try:
        arguments = from_json(call.arguments or "{}")
    except ValueError:
        arguments = {}
    failed = call.status == "failed"
    return ToolExecution(
        call.id,
        f"{call.name} (provider)",
        arguments if isinstance(arguments, dict) else {},
        json_bytes(call.result).decode() if failed and call.result is not None else None,
        tool_call_error=failed,
    )


def _holds(streamed: str, final: str) -> bool:
    """Whether the streamed text ends with the final answer, which is then not shown again."""
    return streamed.strip().endswith(final.strip()) if final.strip() else True


class Progress:
    """A tree of runs, by run id."""

    def __init__(self) -> None:
        self.runs: dict[str, RunProgress] = {}
        self.top: RunProgress | None = None

    def members(self) -> Iterator[RunProgress]:
        """All runs below the top, in the order in which they began."""
        return (run for run in self.runs.values() if run is not self.top)

    def run_of(self, source: EventSource) -> RunProgress:
        """The run of an event; created at its first event."""
        run = self.runs.get(source.run_id)
        if run is None:
            run = RunProgress(
                source.run_id,
                _name(source),
                source.is_team,
                title=source.agent_name or source.team_name or "",
                id=source.agent_id or source.team_id or "",
                parent_run_id=source.parent_run_id,
            )
            self.runs[source.run_id] = run
            if self.top is None and source.nested_depth == 0:
                self.top = run
        return run

    def apply(self, event: BaseRunEvent) -> RunProgress:
        """Take one event in; returns the run that it belongs to."""
        run, now = self.run_of(event.source), event.created_at
        match event:
            case RunContentEvent(content=str(text)):
                run.answer.append(text)
            case RunContentEvent(content=content):
                run.structured = content
            case ReasoningContentDeltaEvent(reasoning_content=text):
                run.reasoning.append(text)
            case ModelRequestStartedEvent():
                run.answer.start_turn()
                run.reasoning.start_turn()
            case ModelRetryEvent():
                run.answer.void_turn()
                run.reasoning.void_turn()
            case ToolCallStartedEvent(tool=ToolExecution() as call):
                run.begin_call(call)
            case ToolCallCompletedEvent(tool=ToolExecution() as call):
                run.end_call(call)
            case ProviderToolCallStartedEvent(call=call):
                run.begin_call(as_execution(call))
            case ProviderToolCallCompletedEvent(call=call):
                run.end_call(as_execution(call))
            case RunStartedEvent():
                run.started = now
            case RunContinuedEvent():
                run.status, run.duration = RunStatus.running, None
            case RunCompletedEvent():
                run.end(RunStatus.completed, at=now)
            case RunPausedEvent(requirements=requirements):
                run.requirements = requirements
                run.end(RunStatus.paused, at=now)
            case RunCancelledEvent(reason=reason):
                run.end(RunStatus.cancelled, reason or "", at=now)
            case RunErrorEvent(error=error):
                run.end(RunStatus.error, error, at=now)
        return run


def _name(source: EventSource) -> str:
    if len(source.path) > 2:
        return " › ".join(source.path[1:])
    if source.path:
        return source.path[-1]
    return source.agent_name or source.team_name or source.agent_id or source.team_id or "Run"


def progress_of(output: AnyRunOutput, above: tuple[str, ...] = ()) -> RunProgress:
    """A finished run; `above` are the names of the runs above it, from the top down."""
    title, own = _output_names(output)
    name = " › ".join((*above[1:], own)) if above else own
    run = RunProgress(output.run_id, name, isinstance(output, TeamRunOutput), title=title, own_name=own)
    run.finish(output)
    return run


def _output_names(output: AnyRunOutput) -> tuple[str, str]:
    """The name that the application has given, or None, and the name to show in any case."""
    if isinstance(output, TeamRunOutput):
        return output.team_name or "", output.team_name or output.team_id or "Team"
    return output.agent_name or "", output.agent_name or output.agent_id or "Agent"
