"""The leader's tool that hands a task to a member, whose run is part of the team's."""

from __future__ import annotations

import uuid
from collections.abc import Mapping

from pydantic_core import from_json

from kern.errors import ToolArgumentsError
from kern.messages import Message
from kern.models.base import ToolDefinition
from kern.run.output import RunStatus
from kern.runtime.engine import drive_child
from kern.runtime.run import Run
from kern.runtime.spec import CallSite, RunInput, RunnerSpec, ToolOutcome

NAME = "delegate_task_to_member"


class Delegation:
    """`delegate_task_to_member(member_id, task)`.

    Args:
        members: The direct members by id.
        share_interactions: A task is preceded by what members did earlier in this run.
    """

    __slots__ = ("_share_interactions", "definition", "members")

    def __init__(self, members: Mapping[str, RunnerSpec], *, share_interactions: bool) -> None:
        self.members = members
        self._share_interactions = share_interactions
        self.definition = ToolDefinition(
            NAME,
            "Hand a task to a member of your team and get the member's answer. Members that can work "
            "independently of each other can be called in the same turn; they then work at the same time.",
            {
                "type": "object",
                "properties": {
                    "member_id": {"type": "string", "description": "The id of the member."},
                    "task": {
                        "type": "string",
                        "description": "The task, with everything that the member has to know; "
                        "it does not see the conversation.",
                    },
                },
                "required": ["member_id", "task"],
                "additionalProperties": False,
            },
        )

    async def run(self, run: Run, site: CallSite) -> ToolOutcome:
        """Run the member on the task; its answer is the outcome."""
        site.pass_on()
        child = run.paused.pop(site.execution.child_run_id or "", None) or self._new_child(run, site)
        if isinstance(child, ToolOutcome):
            return child
        output = await drive_child(child)
        if output.status is RunStatus.paused:
            return ToolOutcome("", pending=True)
        if output.status is RunStatus.cancelled:
            return ToolOutcome(f"{child.spec.label} was cancelled.", error=True)
        return ToolOutcome(output.get_content_as_string())

    def _new_child(self, run: Run, site: CallSite) -> Run | ToolOutcome:
        member_id, task = _parse(site.call.arguments)
        spec = self.members.get(member_id)
        if spec is None:
            known = ", ".join(self.members) or "none"
            return ToolOutcome(f"There is no member with the id {member_id!r}. Members: {known}.", error=True)
        text = self._preceded(run, task)
        child = run.child(spec, RunInput(value=text, messages=[Message("user", text)]), str(uuid.uuid4()))
        site.execution.child_run_id = child.run_id
        return child

    def _preceded(self, run: Run, task: str) -> str:
        """The task, after what members did earlier in this run."""
        if not self._share_interactions:
            return task
        lines = [
            f"- {child.spec.label} was asked: {child.input.value}\n  and answered: {child.output.content}"
            for child in run.children
            if child.output.content is not None
        ]
        if not lines:
            return task
        shared = "\n".join(lines)
        return f"<member_interaction_context>\n{shared}\n</member_interaction_context>\n\n{task}"


def _parse(arguments: str) -> tuple[str, str]:
    try:
        given = from_json(arguments)
    except ValueError as error:
        raise ToolArgumentsError(f"{NAME}: the arguments are not valid JSON: {error}", tool=NAME) from error
    values = [given.get(name) if isinstance(given, dict) else None for name in ("member_id", "task")]
    if not all(isinstance(value, str) and value for value in values):
        raise ToolArgumentsError(f"{NAME} takes member_id and task, both non-empty strings", tool=NAME)
    return str(values[0]), str(values[1])
