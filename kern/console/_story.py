"""Turns the events of a run, or its output, into sections in the order in which things happened."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kern.console._progress import Progress, RunProgress, as_execution, progress_of
from kern.console._sections import (
    Section,
    answer_section,
    call_section,
    closing_section,
    ending_section,
    member_sections,
    one_line,
    reasoning_section,
    said_section,
)
from kern.console._text import shorten
from kern.console._view import ViewOptions
from kern.errors import KernError
from kern.run.events import (
    TERMINAL_EVENTS,
    BaseRunEvent,
    ModelRequestStartedEvent,
    ProviderToolCallCompletedEvent,
    RunContentEvent,
    RunContinuedEvent,
    RunStartedEvent,
    SessionStateChangedEvent,
    ToolCallCompletedEvent,
    ToolCallStartedEvent,
)
from kern.run.output import AnyRunOutput, TeamRunOutput
from kern.run.tool_execution import ToolExecution
from kern.state.patch import apply

_ENDS_REASONING = (RunContentEvent, ToolCallStartedEvent, ModelRequestStartedEvent, *TERMINAL_EVENTS)
_MOST_CHANGES = 6
"""The maximum number of lines for one change of the state."""
_LONGEST_VALUE = 60
_LONGEST_TASK = 300


class Story:
    """Turns the events of a tree of runs into sections, each of which is complete and final.

    Args:
        options: What to show.
    """

    def __init__(self, options: ViewOptions) -> None:
        self.progress = Progress()
        self._options = options
        self._shown: set[str] = set()
        self._reasoned = 0
        self._state: Any = None
        self._revision = -1
        self._changes: dict[tuple[str, str], list[Section]] = {}
        """The state changes of calls in progress; they are shown below the call when it ends."""

    def take(self, event: BaseRunEvent) -> list[Section]:
        """Process one event; returns the sections that can be shown now."""
        run = self.progress.apply(event)
        top = run is self.progress.top
        sections: list[Section] = []
        if top and isinstance(event, _ENDS_REASONING):
            sections += self._reasoning(run)
        if top and isinstance(event, ToolCallStartedEvent) and run.structured is None:
            said = said_section(run, self._options)
            sections += [said] if said else []
        match event:
            case RunStartedEvent(session_state=state) | RunContinuedEvent(session_state=state):
                if top:
                    self._state = state
                else:
                    sections.append(self._sent(run))
            case ToolCallCompletedEvent(tool=ToolExecution() as call):
                if not delegates(call):
                    sections.append(call_section(call, "" if top else run.name))
                sections += self._changes.pop((run.run_id, call.tool_call_id), [])
            case ProviderToolCallCompletedEvent(call=made):
                sections.append(call_section(as_execution(made), "" if top else run.name))
            case SessionStateChangedEvent():
                sections += self._changed(event)
            case _:
                pass
        if not top and isinstance(event, TERMINAL_EVENTS):
            self._shown.add(run.run_id)
            sections += member_sections(run, self._options)
        return sections

    def finish(self, output: AnyRunOutput) -> list[Section]:
        """The sections that are left to show at the end of a run."""
        top = self.progress.top
        if top is None:
            return [*sections_of_output(output, self._options), closing_section(output)]
        top.finish(output)
        return [*self.left_over(), closing_section(output)]

    def left_over(self, *, ending: bool = True) -> list[Section]:
        """The sections from events that were not shown yet."""
        top = self.progress.top
        if top is None:
            return []
        sections: list[Section | None] = [change for changes in self._changes.values() for change in changes]
        self._changes.clear()
        for member in self.progress.members():
            if member.run_id not in self._shown and member.answer:
                sections += member_sections(member, self._options)
        sections += self._reasoning(top)
        sections.append(answer_section(top, self._options))
        if ending:
            sections.append(ending_section(top, self._options))
        return [section for section in sections if section is not None]

    def _reasoning(self, run: RunProgress) -> list[Section]:
        """The complete reasoning that was not shown yet."""
        shown = min(self._reasoned, len(run.reasoning.text))
        self._reasoned = len(run.reasoning.text)
        if not self._options.show_reasoning:
            return []
        section = reasoning_section(run.reasoning.text[shown:])
        return [section] if section else []

    def _sent(self, member: RunProgress) -> Section:
        """A member begins: its name and its task."""
        above = self.progress.runs.get(member.parent_run_id or "")
        calls = () if above is None else tuple(above.running.values())
        return _sent(member.name, _task_for(member.id, calls))

    def _changed(self, event: SessionStateChangedEvent) -> list[Section]:
        """A change of the session state, shown once, below the call that made it."""
        if event.revision <= self._revision:
            return []
        self._revision = event.revision
        before, self._state = self._state, _applied(self._state, event.patch)
        lines = _diff_lines(before, event.patch)
        if (more := len(lines) - _MOST_CHANGES) > 0:
            lines = [*lines[:_MOST_CHANGES], f"and {more} more"]
        text = ", ".join(lines)
        run = self.progress.runs.get(event.writer_run_id or "")
        if run is not None and event.tool_call_id in run.running:
            changes = self._changes.setdefault((run.run_id, event.tool_call_id), [])
            changes.append(Section("change", text, marker="±"))
            return []
        return [Section("step", text, name=one_line(" › ".join(event.agent_path[1:])), marker="±")]


def sections_of_output(
    output: AnyRunOutput, options: ViewOptions, above: tuple[str, ...] = ()
) -> Iterator[Section]:
    """The sections for an output without events, call by call."""
    run = progress_of(output, above)
    members = {}
    if isinstance(output, TeamRunOutput):
        members = {member.run_id: member for member in output.member_responses}
    for call in output.tools:
        children = [members.pop(child) for child in delegated(call) if child in members]
        for child in children:
            yield from _sections_of_member(child, call, options, (*above, run.own_name))
        if not children:
            yield call_section(call, run.name if above else "")
    for left in members.values():
        yield from _sections_of_member(left, None, options, (*above, run.own_name))
    if above:
        yield from member_sections(run, options)
        return
    sections = [
        reasoning_section(run.reasoning.text) if options.show_reasoning else None,
        answer_section(run, options),
        ending_section(run, options),
    ]
    yield from (section for section in sections if section is not None)


def _sections_of_member(
    output: AnyRunOutput, call: ToolExecution | None, options: ViewOptions, above: tuple[str, ...]
) -> Iterator[Section]:
    member = progress_of(output, above)
    yield _sent(member.name, "" if call is None else _task_of(call))
    yield from sections_of_output(output, options, above)


def delegated(call: ToolExecution) -> Sequence[str]:
    """The members' runs that a call started."""
    return call.child_run_ids or ([call.child_run_id] if call.child_run_id else [])


def delegates(call: ToolExecution) -> bool:
    """Whether the call is a delegation, which the members' own sections show."""
    return bool(delegated(call))


def _task_for(member_id: str, calls: Sequence[ToolExecution]) -> str:
    """The task in the call that delegated to this member."""
    for call in reversed(calls):
        if call.tool_args.get("member_id") in (member_id, None) and (task := _task_of(call)):
            return task
    return ""


def _task_of(call: ToolExecution) -> str:
    task = call.tool_args.get("task")
    return task if isinstance(task, str) else "" if task is None else _value(task)


def _sent(name: str, task: str) -> Section:
    return Section("step", one_line(shorten(task, _LONGEST_TASK)), name=one_line(name), marker="→")


def _applied(state: Any, patch: Sequence[Mapping[str, Any]]) -> Any:
    """The state after a change; None where it is not known."""
    if state is None:
        return None
    try:
        return apply(state, [dict(operation) for operation in patch])
    except KernError:
        return None


def _diff_lines(before: Any, patch: Sequence[Mapping[str, Any]]) -> list[str]:
    """A change as people read it: `shopping_list + "milk"`, `edits 0 → 1`."""
    lines = []
    for operation in patch:
        tokens = [token.replace("~1", "/").replace("~0", "~") for token in operation["path"].split("/")[1:]]
        parent, old = _looked_up(before, tokens[:-1]), _looked_up(before, tokens)
        if isinstance(parent, list) or (tokens and tokens[-1] == "-"):
            tokens, in_list = tokens[:-1], True
        else:
            in_list = False
        path = one_line(".".join(tokens)) or "state"
        new = _value(operation.get("value"))
        match operation["op"]:
            case "remove":
                lines.append(f"{path} - {_value(old)}" if in_list else f"{path} removed")
            case "add" if in_list:
                lines.append(f"{path} + {new}")
            case _:
                lines.append(f"{path} = {new}" if old is None else f"{path} {_value(old)} → {new}")
    return lines


def _looked_up(tree: Any, tokens: Sequence[str]) -> Any:
    """The value at a path, or None."""
    for token in tokens:
        try:
            tree = tree[int(token)] if isinstance(tree, list) else tree[token]
        except (KeyError, IndexError, ValueError, TypeError):
            return None
    return tree


def _value(value: Any) -> str:
    return one_line(shorten(json.dumps(value, ensure_ascii=False, default=str), _LONGEST_VALUE))
