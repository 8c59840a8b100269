"""What a team's leader is told of its members and of how to work with them."""

from __future__ import annotations

from collections.abc import Mapping
from xml.sax.saxutils import escape, quoteattr

from kern.agent.definition import Definition

_RULES = """\
<how_to_work>
You lead the team whose members are listed above. For each request decide whether to answer by yourself, to
use your own tools, or to delegate to members with `delegate_task_to_member`.
- Give each member a task of its own with all that it has to know; members do not see this conversation.
- Delegate tasks that do not depend on each other in the same turn; members then work at the same time.
- Members share one session state with you; what a member has changed there is done.
- When the members have answered, answer the user yourself: put their results together, do not repeat them.
- Use a member's id exactly as it is listed.
</how_to_work>"""


def roster(members: Mapping[str, Definition], subteams: Mapping[str, Mapping[str, Definition]]) -> str:
    """The `<team_members>` block with the rules of delegation; empty for a team without members."""
    if not members:
        return ""
    lines = ["<team_members>"]
    for member_id, member in members.items():
        lines.append(f"<member id={quoteattr(member_id)} name={quoteattr(member.name or member_id)}>")
        about = member.role or member.description
        if about:
            lines.append(f"Role: {escape(about)}")
        if member_id in subteams:
            names = ", ".join(escape(sub.name or sub_id) for sub_id, sub in subteams[member_id].items())
            lines.append(f"A team of its own, with: {names or 'no members'}")
        lines.append("</member>")
    lines.append("</team_members>")
    return "\n".join(lines) + "\n\n" + _RULES
