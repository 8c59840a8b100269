"""The part of the leader's system message that describes the members and how to work with them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape

from kern.errors import ToolError
from kern.runner.definition import Definition
from kern.runtime.run_tree import RunnableTool, RunnerSpec
from kern.team.mode import TeamMode

Sourced = Mapping[str, RunnableTool] | ToolError
"""The tools that a member loaded from a source, by name, or the error of loading them."""

_COMMON = """\
- Members share one session state with you; what a member has changed there is done.
- Use a member's id exactly as it is listed."""

_RULES = {
    TeamMode.coordinate: f"""\
You lead the team whose members are listed above. For each request decide whether to answer by yourself, to
use your own tools, or to delegate to members with `delegate_task_to_member`.
- Give each member a task of its own with all that it has to know; members do not see this conversation.
- Delegate tasks that do not depend on each other in the same turn; members then work at the same time.
- When the members have answered, answer the user yourself: put their results together, do not repeat them.
{_COMMON}""",
    TeamMode.route: f"""\
You route requests to the members listed above. For each request pick the member that is right for it and
hand it over with `delegate_task_to_member`; the member's answer goes to the user as it is. Answer by yourself
only what no member is there for.
{_COMMON}""",
    TeamMode.broadcast: f"""\
You lead the team whose members are listed above. Hand each request to all of them with
`delegate_task_to_members`; they work at the same time. Then answer the user yourself: compare and combine
what they have answered.
{_COMMON}""",
    TeamMode.tasks: f"""\
You lead the team whose members are listed above, and keep a list of tasks for it.
- Break the request down with `create_task`; say what depends on what, and who does it.
- Have tasks done with `execute_tasks`; those that do not depend on each other in one call, at the same time.
- Mark what you have done yourself with `complete_task`. A task that failed can be executed again.
- When all tasks are completed, answer the user: put the results together.
{_COMMON}""",
}


def roster(
    members: Mapping[str, Definition],
    specs: Mapping[str, RunnerSpec],
    sourced: Mapping[str, Sourced],
    *,
    tools_too: bool,
) -> str:
    """The `<team_members>` block of the system message.

    Args:
        members: The direct members by id.
        specs: The members' specs by id.
        sourced: By member id: the tools that it loaded from sources, or the error of loading them.
        tools_too: List the members' tools as well.
    """
    lines = ["<team_members>"]
    for member_id, member in members.items():
        lines.append(f'<member id="{_quoted(member_id)}" name="{_quoted(member.name or member_id)}">')
        about = member.role or member.description
        if about:
            lines.append(f"Role: {_escaped(about)}")
        if member.input_schema is not None:
            schema = json.dumps(member.input_schema.model_json_schema(), ensure_ascii=False)
            lines.append(f"Its task is JSON that follows this schema: {_escaped(schema)}")
        if specs[member_id].is_team:
            names = ", ".join(_escaped(sub.name or key) for key, sub in member._known_members().items())
            lines.append(f"A team of its own, with: {names or 'no members'}")
        tools = dict(specs[member_id].tools) if tools_too else {}
        more = sourced.get(member_id, {})
        if isinstance(more, ToolError):
            lines.append(f"Some of its tools are not available now: {_escaped(str(more))}")
        else:
            tools |= more
        lines += [
            f"Tool: {_escaped(_line(tool.definition.name, tool.definition.description))}"
            for tool in tools.values()
        ]
        lines.append("</member>")
    lines.append("</team_members>")
    return "\n".join(lines)


def with_rules(roster: str, mode: TeamMode) -> str:
    """The roster, followed by the rules of the mode."""
    return f"{roster}\n\n<how_to_work>\n{_RULES[mode]}\n</how_to_work>"


def _line(name: str, description: str) -> str:
    first = description.strip().splitlines()[0] if description.strip() else ""
    return f"{name}: {first}" if first else name


def _escaped(text: str) -> str:
    """The text with `&`, `<` and `>` written as entities, so that it cannot end an element."""
    return escape(text, quote=False)


def _quoted(text: str) -> str:
    """The text as it can stand between double quotes; an apostrophe stays one."""
    return _escaped(text).replace('"', "&quot;")
