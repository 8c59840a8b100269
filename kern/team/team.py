"""A team: a leader whose members are tools. It has no loop of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from kern.agent.agent import Agent
from kern.agent.options import NO_OPTIONS, RunOptions
from kern.agent.prompt import Prompt
from kern.agent.running import Runner
from kern.agent.state_tool import STATE_TOOL
from kern.errors import UsageError
from kern.models.base import Model
from kern.run.output import TeamRunOutput
from kern.runtime.spec import RunnableTool, RunnerSpec
from kern.state.resolve import fill
from kern.team.delegation import NAME, Delegation
from kern.team.prompt import roster


@dataclass(kw_only=True, eq=False, repr=False, slots=True)
class Team(Runner[TeamRunOutput]):
    """A leader that answers with the help of members, which are agents or teams.

        team = Team(members=[buyer, cook], session_state={"shopping_list": []})
        output = await team.arun("Plan a dinner for four")

    Leader and members share one session state. The parameters are those of `Definition`, and:

    Args:
        members: Agents and teams. The same one may be in several teams, and run alone, at the same time.
        share_member_interactions: Tell a member what members did earlier in the run.
        show_members_responses: `print_response` shows what members did and answered.
    """

    members: Sequence[Agent | Team] = field(kw_only=False)
    share_member_interactions: bool = False
    show_members_responses: bool = False

    def build_spec(self, options: RunOptions, inherited_model: Model | None = None) -> RunnerSpec:
        """What the engine is told of this team for one run."""
        model = self.chosen_model(inherited_model)
        members = self.members_by_id()
        specs = {
            member_id: _named(member.build_spec(NO_OPTIONS, model), member_id)
            for member_id, member in members.items()
        }
        tools = dict(self.function_tools())
        if self.enable_agentic_state:
            tools[STATE_TOOL.definition.name] = STATE_TOOL
        if specs:
            if NAME in tools:
                raise UsageError(f"{self!r}: a tool may not be named {NAME!r}, which is the team's own")
            delegation: RunnableTool = Delegation(specs, share_interactions=self.share_member_interactions)
            tools[NAME] = delegation
        subteams = {
            key: member.members_by_id() for key, member in members.items() if isinstance(member, Team)
        }
        return RunnerSpec(
            id=self.get_id(),
            name=self.name,
            is_team=True,
            model=model,
            tools=tools,
            prompt=Prompt.of(self, options, roster(members, subteams)),
            tool_choice=self.tool_choice,
            tool_call_limit=self.tool_call_limit,
            retries=self.retry_policy(),
        )

    def members_by_id(self) -> Mapping[str, Agent | Team]:
        """The direct members under the ids that the leader uses.

        Raises:
            UsageError: Two members have the same explicit id, or something is no agent or team.
        """
        found: dict[str, Agent | Team] = {}
        for member in self.members:
            if not isinstance(member, Agent | Team):
                raise UsageError(f"{self!r}: a member is an Agent or a Team, not {type(member).__name__}")
            member_id = member.get_id()
            if member_id in found and member.id is not None and found[member_id].id is not None:
                raise UsageError(f"{self!r}: two members have the id {member_id!r}")
            found[_free(member_id, found)] = member
        return found

    def default_state(self) -> dict[str, Any]:
        """What a new session starts from: the team's own state, and what members bring that it lacks."""
        state: dict[str, Any] = dict(self.session_state or {})
        for member in self.members:
            state = fill(state, member.default_state())
        return state

    def _shows_members(self) -> bool:
        return self.show_members_responses


def _free(member_id: str, taken: Mapping[str, object]) -> str:
    if member_id not in taken:
        return member_id
    number = 2
    while f"{member_id}-{number}" in taken:
        number += 1
    return f"{member_id}-{number}"


def _named(spec: RunnerSpec, member_id: str) -> RunnerSpec:
    """The member under the id that it has in this team."""
    return spec if spec.id == member_id else replace(spec, id=member_id)
