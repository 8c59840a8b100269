"""Delegation: the leader's tools that give a task to one member or to all, as runs below the team's run."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

from kern._error_text import error_text
from kern.errors import KernError, ToolArgumentsError
from kern.messages import MEDIA, Message, with_context
from kern.models.base import ToolDefinition
from kern.run.output import AnyRunOutput, RunStatus
from kern.runner.compile import new_id
from kern.runner.past_runs import team_history
from kern.runner.transcript import transcript_of
from kern.runtime.engine import drive_child
from kern.runtime.interrupted import summary_of_calls
from kern.runtime.out import Answer
from kern.runtime.outcome import CallSite, ToolOutcome
from kern.runtime.request import RunInput
from kern.runtime.run_tree import Run, RunnerSpec
from kern.runtime.steps import first_signal
from kern.tools.result import mention, prompt_text

ONE = "delegate_task_to_member"
ALL = "delegate_task_to_members"
INFORMATION = "get_member_information"

_TASK = {
    "type": "string",
    "description": "The task, with everything that a member has to know; it does not see the conversation.",
}


@dataclass(slots=True, frozen=True, kw_only=True)
class Rules:
    """How a team delegates.

    Args:
        share_interactions: Put what members did earlier in this run before a task.
        history_runs: Put this many of the team's last runs before a task.
        own_wording: The leader writes the task; otherwise a member gets the user's input itself.
        answers_directly: A member's answer becomes the team's answer.
        timeout: Seconds that a member may take for a task; None: no limit.
        stream_events: Members' events appear in the team's stream.
    """

    share_interactions: bool = False
    history_runs: int = 0
    own_wording: bool = True
    answers_directly: bool = False
    timeout: float | None = None
    stream_events: bool = True


@dataclass(slots=True, frozen=True)
class TeamRoster:
    """A team's direct members, and how a task reaches one.

    Args:
        specs: The members by id.
        rules: How the team delegates.
    """

    specs: Mapping[str, RunnerSpec]
    rules: Rules

    def find(self, given: str) -> str | None:
        """The id of the member that the leader means: by id, or by a name that only one member has."""
        if given in self.specs:
            return given
        found = self._called(given)
        return found[0] if len(found) == 1 else None

    def _called(self, given: str) -> list[str]:
        """The ids of the members that `given` may mean. Ids win over names, exact case over other case."""
        wanted = given.strip().casefold()
        by_id = [key for key in self.specs if key.casefold() == wanted]
        exact = [key for key, spec in self.specs.items() if spec.name == given]
        by_name = [key for key, spec in self.specs.items() if (spec.name or "").strip().casefold() == wanted]
        return by_id or exact or by_name

    def unknown(self, given: str) -> ToolOutcome:
        """The answer to the leader for an id that no member has, or a name that several members have."""
        several = len(self._called(given)) > 1
        trouble = f"Several members are called {given!r}: use an id." if several else ""
        trouble = trouble or f"There is no member with the id {given!r}."
        return ToolOutcome(f"{trouble} Members: {', '.join(self.specs) or 'none'}.", error=True)

    async def begin(self, run: Run, spec: RunnerSpec, task: str, *, place: str, alone: bool = False) -> Run:
        """Create a member's run on the task. The caller drives it.

        Args:
            place: What identifies the run within `run`, together with the member's id: the id of the tool
                call, and for several tasks in one call the task's id.
            alone: As in `CallSite`.
        """
        given = run.input.messages
        if self.rules.own_wording:
            media: dict[str, Any] = {
                name: [item for m in given for item in getattr(m, name)] for name in MEDIA
            }
            given = [Message("user", task, **media)]
        messages = with_context(given, before=await self._context(run))
        value = messages[-1].content if self.rules.own_wording else run.input.value
        run_input = RunInput(value=value, messages=messages)
        run_id = new_id()
        if run.tree.steps is not None:  # a run that is resumed from its journal must make the same id again
            run_id = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{run.run_id}/{place}/{spec.id}"))
        return self.child(run, spec, run_input, run_id, alone=alone)

    def child(self, run: Run, spec: RunnerSpec, input: RunInput, run_id: str, *, alone: bool) -> Run:
        """Create a member's run below `run`. With `alone`, its answer may be streamed as the team's."""
        return run.child(
            spec,
            input,
            run_id,
            emits=self.rules.stream_events,
            speaks_for_parent=self.rules.answers_directly
            and alone
            and (spec.structured or not run.spec.structured),
        )

    async def drive(self, child: Run) -> ToolOutcome:
        """Drive a member's run. The outcome is its answer, or an error text if it failed or took too long."""
        label = child.spec.label
        deadline = asyncio.timeout(self.rules.timeout)
        try:
            async with deadline:
                await drive_child(child)
        except TimeoutError:
            if not deadline.expired():
                raise
            return _failed(child, f"{label} did not answer within {self.rules.timeout:g} s.")
        except KernError as error:
            return _failed(child, f"{label} failed: {error_text(error)}")
        return self._outcome(child)

    async def drive_again(self, child: Run) -> None:
        """Drive a member's run whose outcome is in the journal already; its steps come from there, too."""
        await drive_child(child)

    async def drive_all(self, run: Run, children: Sequence[Run]) -> list[ToolOutcome]:
        """Drive members' runs below `run` at the same time, except those that had ended before a pause."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._driven(run, child)) for child in children]
        except BaseExceptionGroup as errors:
            raise first_signal(errors) or errors.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _driven(self, run: Run, child: Run) -> ToolOutcome:
        if child.output.status is not RunStatus.running:
            return self._outcome(child)
        run.paused.pop(child.run_id, None)
        async with run.member_slots:
            return await self.drive(child)

    def _outcome(self, child: Run) -> ToolOutcome:
        """The outcome of a member's run that ended without raising."""
        output = child.output
        if output.status is RunStatus.paused:
            return ToolOutcome("", pending=True)
        if output.error is not None:
            return _failed(child, output.error)
        if output.status is RunStatus.cancelled:
            return _failed(child, f"{child.spec.label} was cancelled.")
        answer = None
        if self.rules.answers_directly:
            content = output.last_turn if output.content is None else output.content
            answer = Answer(content, output.content_type, output.last_turn)
        media = output.media
        # The leader reads that there are media, but does not get them: its model may not accept any.
        text = "\n".join(filter(None, [_answer(output), *map(mention, media)]))
        not_streamed = answer is not None and not child.out.streams
        return ToolOutcome(text, answer=answer, not_streamed=not_streamed, media=media, media_in_text=True)

    async def _context(self, run: Run) -> str:
        """The text that is put before a task."""
        parts = []
        if self.rules.history_runs:
            parts.append(await team_history(run, self.rules.history_runs))
        if self.rules.share_interactions:
            parts.append(_interactions(run))
        return "\n\n".join(part for part in parts if part)


class Delegation:
    """The tool `delegate_task_to_member(member_id, task)`: one member, one task."""

    __slots__ = ("definition", "team")
    drives_runs = True

    def __init__(self, team: TeamRoster) -> None:
        self.team: TeamRoster = team
        properties: dict[str, Any] = {"member_id": {"type": "string", "description": "The id of the member."}}
        if team.rules.own_wording:
            properties["task"] = _TASK
        self.definition: ToolDefinition = ToolDefinition(
            ONE,
            "Hand a task to a member of your team and get the member's answer. Members that can work "
            "independently of each other can be called in the same turn; they then work at the same time.",
            _object(properties),
        )

    async def run(self, run: Run, site: CallSite) -> ToolOutcome:
        """Run the member on the task; its answer is the outcome."""
        child = run.paused.pop(site.execution.child_run_id or "", None)
        if child is None:
            names = ["member_id", *(["task"] if self.team.rules.own_wording else [])]
            member_id, *task = _texts(site.call.arguments, ONE, names)
            found = self.team.find(member_id)
            if found is None:
                return self.team.unknown(member_id)
            spec = self.team.specs[found]
            child = await self.team.begin(run, spec, "".join(task), place=site.call.id, alone=site.alone)
            site.execution.child_run_id = child.run_id
        return await self.team.drive(child)


class Broadcast:
    """The tool `delegate_task_to_members(task)`: all members work on one task at the same time."""

    __slots__ = ("definition", "team")
    drives_runs = True

    def __init__(self, team: TeamRoster) -> None:
        self.team: TeamRoster = team
        self.definition: ToolDefinition = ToolDefinition(
            ALL,
            "Hand one task to all members of your team, who work at the same time, and get their answers.",
            _object({"task": _TASK} if team.rules.own_wording else {}),
        )

    async def run(self, run: Run, site: CallSite) -> ToolOutcome:
        """Run every member on the task; the outcome holds all answers, in the order of the members."""
        execution = site.execution
        if execution.child_run_ids:
            children = [child for child in run.children if child.run_id in execution.child_run_ids]
        else:
            [task] = _texts(site.call.arguments, ALL, ["task"]) if self.team.rules.own_wording else [""]
            begin, place = self.team.begin, site.call.id
            children = [await begin(run, spec, task, place=place) for spec in self.team.specs.values()]
            execution.child_run_ids = [child.run_id for child in children]
        outcomes = await self.team.drive_all(run, children)
        if any(outcome.pending for outcome in outcomes):
            return ToolOutcome("", pending=True)
        parts = [
            f"{child.spec.label}: {outcome.content}"
            for child, outcome in zip(children, outcomes, strict=True)
        ]
        media = [item for outcome in outcomes for item in outcome.media]
        return ToolOutcome("\n\n".join(parts), media=media, media_in_text=True)


class MemberInformation:
    """The tool `get_member_information()`: the leader looks up its members."""

    __slots__ = ("_about", "definition")

    def __init__(self, about: str) -> None:
        self._about = about
        self.definition: ToolDefinition = ToolDefinition(
            INFORMATION, "Read who the members of your team are.", _object({})
        )

    async def run(self, run: Run, site: CallSite) -> ToolOutcome:
        """Return the roster."""
        return ToolOutcome(self._about)


def _interactions(run: Run) -> str:
    """The `<member_interaction_context>` block: what members did earlier in this run."""
    done = [child for child in run.children if child.output.status is RunStatus.completed]
    lines = [
        f"- {child.spec.label} was asked: {transcript_of(child.output).asked()}\n"
        f"  and answered: {_answer(child.output)}"
        for child in done
    ]
    if not lines:
        return ""
    body = "\n".join(lines)
    return f"<member_interaction_context>\n{body}\n</member_interaction_context>"


def _failed(child: Run, why: str) -> ToolOutcome:
    """An error outcome that also lists the calls the member made, so that the leader does not repeat them."""
    return ToolOutcome("\n\n".join(filter(None, [why, summary_of_calls(child)])), error=True)


def _answer(output: AnyRunOutput) -> str:
    """A member's answer as others read it: its last turn, without what it said between tool calls."""
    if not isinstance(output.content, str | None):
        return prompt_text(output.content)
    return output.last_turn or output.get_content_as_string()


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _texts(arguments: str, tool: str, names: list[str]) -> list[str]:
    """Parse a call's arguments and return the named ones.

    Raises:
        ToolArgumentsError: The text is not JSON, or one of them is not a non-empty string.
    """
    try:
        given = from_json(arguments or "{}")
    except ValueError as error:
        raise ToolArgumentsError(f"{tool}: the arguments are not valid JSON: {error}", tool=tool) from error
    values = [given.get(name) if isinstance(given, dict) else None for name in names]
    if not all(isinstance(value, str) and value for value in values):
        raise ToolArgumentsError(f"{tool} takes {' and '.join(names)}, as non-empty strings", tool=tool)
    return [str(value) for value in values]
