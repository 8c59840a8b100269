"""A team: a leader whose members are tools. It has no loop of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from kern.errors import ToolError, UsageError
from kern.models.base import Model
from kern.run.output import TeamRunOutput
from kern.runner.checks import check_count, check_seconds
from kern.runner.compile import (
    check_shape,
    function_tools,
    has_sources,
    loaded_tools,
    model_of,
    spec_of,
    with_checks,
)
from kern.runner.definition import Definition, id_of
from kern.runner.options import NO_OPTIONS, RunOptions
from kern.runner.prompt import call_for_run
from kern.runner.session_state import StateAccess
from kern.runner.sessions import SessionAccess
from kern.runner.terminal import Terminal
from kern.runtime.hooked import hooked
from kern.runtime.run import Run
from kern.runtime.spec import RunnableTool, RunnerSpec
from kern.team.delegation import ALL, ONE, Broadcast, Delegation, MemberInformation, Members, Rules
from kern.team.mode import TeamMode, chosen_mode
from kern.team.prompt import Sourced, roster, with_rules
from kern.team.tasks import KEY, TaskList


@dataclass(kw_only=True, eq=False, repr=False, slots=True)
class Team(Terminal[TeamRunOutput], SessionAccess, StateAccess):
    """A leader that answers with the help of members, which are agents or teams.

        team = Team(members=[buyer, cook], session_state={"shopping_list": []})
        output = await team.arun("Plan a dinner for four")

    Leader and members share one session state. The parameters are those of `Definition`, and:

    Args:
        members: Agents and teams, or a function (of `run_context`, if it wants it) that returns them. The
            same one may be in several teams, and run alone, at the same time.
        mode: How the leader works with them: a `TeamMode` or its name.
        respond_directly: The older spelling of `mode="route"`.
        delegate_to_all_members: The older spelling of `mode="broadcast"`.
        determine_input_for_members: The leader words the task; otherwise members get the user's input itself.
            Images and other media of the input go to members either way. Those that come with members'
            answers are in the team's output, and its leader is told of them.
        share_member_interactions: Tell a member what members did earlier in the run.
        add_team_history_to_members: Tell a member what the team was asked and answered in its last runs.
        num_team_history_runs: How many of them.
        get_member_information_tool: Give the leader a tool that tells of the members.
        add_member_tools_to_context: Tell the leader which tools members have; those of MCP servers too, which
            are asked when the run begins.
        member_timeout: Seconds that a member may take for one task.
        max_iterations: In the mode "tasks": how often the leader is sent back to tasks that are still open.
        show_members_responses: `print_response` shows what members did and answered.
        store_member_responses: The team's row in the database holds its members' outputs too; each has a row
            of its own in any case.
        stream_member_events: With `stream_events=True`: members' events are part of the team's.
    """

    members: Sequence[Definition] | Callable[..., Any] = field(kw_only=False)
    mode: TeamMode | str | None = None
    respond_directly: bool = False
    delegate_to_all_members: bool = False
    determine_input_for_members: bool = True
    share_member_interactions: bool = False
    add_team_history_to_members: bool = False
    num_team_history_runs: int = 3
    get_member_information_tool: bool = False
    add_member_tools_to_context: bool = False
    member_timeout: float | None = None
    max_iterations: int = 10
    show_members_responses: bool = False
    store_member_responses: bool = False
    stream_member_events: bool = True

    def __post_init__(self) -> None:
        Definition.__post_init__(self)
        check_seconds("member_timeout", self.member_timeout)
        check_count("num_team_history_runs", self.num_team_history_runs)
        check_count("max_iterations", self.max_iterations)
        self._chosen_mode()

    def _spec(self, options: RunOptions, inherited_model: Model | None = None) -> RunnerSpec:
        model = model_of(self, inherited_model)
        known = self._known_members()
        spec = self._spec_with(options, model, known, function_tools(self), {})
        asks = self.add_member_tools_to_context and any(map(has_sources, known.values()))
        if not callable(self.members) and not has_sources(self) and not asks:
            return spec

        async def expand(run: Run) -> RunnerSpec:
            members = await self._members_for(run)
            sourced = await self._sourced_tools(members)
            return self._spec_with(options, model, members, await loaded_tools(self), sourced)

        return replace(spec, expand=expand)

    async def _members_for(self, run: Run) -> Mapping[str, Definition]:
        if not callable(self.members):
            return self._known_members()
        members = self._by_id(await call_for_run(run, self.members, "members"))
        for member in members.values():
            check_shape(member, run.tree.request.state.shape, (self,))
        return members

    async def _sourced_tools(self, members: Mapping[str, Definition]) -> Mapping[str, Sourced]:
        """The tools that members have from sources such as MCP servers, if the leader is to know of them."""
        asked = [key for key, member in members.items() if has_sources(member)]
        if not self.add_member_tools_to_context or not asked:
            return {}
        try:
            async with asyncio.TaskGroup() as group:
                loading = {key: group.create_task(_loaded(members[key])) for key in asked}
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return {key: task.result() for key, task in loading.items()}

    def _spec_with(
        self,
        options: RunOptions,
        model: Model,
        members: Mapping[str, Definition],
        functions: Mapping[str, RunnableTool],
        sourced: Mapping[str, Sourced],
    ) -> RunnerSpec:
        specs = {key: _named(member._spec(NO_OPTIONS, model), key) for key, member in members.items()}
        about = roster(members, specs, sourced, tools_too=self.add_member_tools_to_context)
        mode = self._chosen_mode()
        rules = with_rules(about, mode) if specs else None
        spec = spec_of(self, options, model, functions, is_team=True, roster=rules)
        spec = replace(spec, stores_children=self.store_member_responses)
        if specs:
            spec = self._with_members(spec, specs, mode, about)
        return with_checks(spec, self, options)

    def _with_members(
        self, spec: RunnerSpec, specs: Mapping[str, RunnerSpec], mode: TeamMode, about: str
    ) -> RunnerSpec:
        """`spec`, with the tools by which the leader reaches its members."""
        tasks = TaskList(spec.id, Members(specs, self._rules(mode)), self.max_iterations)
        own = self._own_tools(mode, tasks, about)
        if taken := own.keys() & spec.tools.keys():
            raise UsageError(f"{self!r}: a tool may not be named {', '.join(taken)}, which is the team's own")
        spec = replace(spec, tools={**spec.tools, **own})
        return replace(spec, review=tasks.review, sink=tasks.sink) if mode is TeamMode.tasks else spec

    def _own_tools(self, mode: TeamMode, tasks: TaskList, about: str) -> dict[str, RunnableTool]:
        """The tools by which the leader reaches its members."""
        tools: dict[str, RunnableTool] = {}
        if mode is TeamMode.tasks:
            tools |= tasks.tools()
        elif mode is TeamMode.broadcast:
            tools[ALL] = Broadcast(tasks.team)
        else:
            tools[ONE] = Delegation(tasks.team)
        if self.get_member_information_tool:
            information = MemberInformation(about)
            tools[information.definition.name] = information
        return {name: hooked(tool, self.tool_hooks) for name, tool in tools.items()}

    def _rules(self, mode: TeamMode) -> Rules:
        return Rules(
            share_interactions=self.share_member_interactions,
            history_runs=self.num_team_history_runs if self.add_team_history_to_members else 0,
            own_wording=self.determine_input_for_members or mode is TeamMode.tasks,
            answers_directly=mode is TeamMode.route,
            timeout=self.member_timeout,
            stream_events=self.stream_member_events,
        )

    def _chosen_mode(self) -> TeamMode:
        return chosen_mode(
            self.mode,
            respond_directly=self.respond_directly,
            delegate_to_all_members=self.delegate_to_all_members,
        )

    def _known_members(self) -> Mapping[str, Definition]:
        return {} if callable(self.members) else self._by_id(self.members)

    def _by_id(self, members: Any) -> dict[str, Definition]:
        if not isinstance(members, Sequence) or isinstance(members, str):
            raise UsageError(f"{self!r}: members takes a list of agents and teams, not {members!r}")
        found: dict[str, Definition] = {}
        numbers: dict[str, int] = {}
        for member in members:
            if not isinstance(member, Definition):
                raise UsageError(f"{self!r}: a member is an Agent or a Team, not {type(member).__name__}")
            member_id = id_of(member)
            if member_id in found and member.id is not None and found[member_id].id is not None:
                raise UsageError(f"{self!r}: two members have the id {member_id!r}")
            found[_free(member_id, found, numbers)] = member
        return found

    def _state_keys(self) -> Sequence[str]:
        return (KEY,) if self._chosen_mode() is TeamMode.tasks else ()

    def _shows_members(self) -> bool:
        return self.show_members_responses


async def _loaded(member: Definition) -> Sourced:
    """A member's tools; or why they cannot be had, which is the member's trouble and not the team's."""
    try:
        return await loaded_tools(member)
    except ToolError as error:
        return error


def _free(member_id: str, taken: Mapping[str, object], numbers: dict[str, int]) -> str:
    """`member_id`, with a number if it is taken; `numbers` is what each was given last."""
    free = member_id
    while free in taken:
        numbers[member_id] = number = numbers.get(member_id, 1) + 1
        free = f"{member_id}-{number}"
    return free


def _named(spec: RunnerSpec, member_id: str) -> RunnerSpec:
    """The member under the id that it has in this team."""
    return spec if spec.id == member_id else replace(spec, id=member_id)
