"""A team: a leader whose members are tools. It has no loop of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from kern.errors import ToolError, UsageError
from kern.models.base import Model
from kern.run.output import TeamRunOutput
from kern.runner.checks import check_count, check_seconds, check_tool_choice
from kern.runner.hooks import with_hooks
from kern.runner.input_schema import with_input
from kern.runner.options import NO_OPTIONS, RunOptions
from kern.runner.output_schema import with_output
from kern.runner.prompt import Prompt, call_for_run
from kern.runner.running import Runner
from kern.runner.terminal import TerminalRunner
from kern.runtime.hooked import hooked
from kern.runtime.run import Run
from kern.runtime.spec import RunnableTool, RunnerSpec
from kern.state.resolve import fill
from kern.state.shape import Shape
from kern.state.typed import ModelShape
from kern.team.delegation import ALL, ONE, Broadcast, Delegation, MemberInformation, Rules
from kern.team.delegation import Members as TeamMembers
from kern.team.mode import TeamMode, chosen_mode
from kern.team.prompt import Sourced, roster, with_rules
from kern.team.tasks import KEY, TaskList

Member = Runner[Any]
"""An agent or a team."""


@dataclass(kw_only=True, eq=False, repr=False, slots=True)
class Team(TerminalRunner[TeamRunOutput]):
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

    members: Sequence[Member] | Callable[..., Any] = field(kw_only=False)
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
        TerminalRunner.__post_init__(self)
        check_seconds("member_timeout", self.member_timeout)
        check_count("num_team_history_runs", self.num_team_history_runs)
        check_count("max_iterations", self.max_iterations)
        self._chosen_mode()

    def build_spec(self, options: RunOptions, inherited_model: Model | None = None) -> RunnerSpec:
        """What the engine is told of this team for one run."""
        model = self.chosen_model(inherited_model)
        known = self.members_by_id()
        spec = self._spec(options, model, known, self.function_tools(), {})
        asks = self.add_member_tools_to_context and any(m.has_tool_sources for m in known.values())
        if not callable(self.members) and not self.has_tool_sources and not asks:
            return spec

        async def expand(run: Run) -> RunnerSpec:
            members = await self._members_for(run)
            sourced = await self._sourced_tools(members)
            return self._spec(options, model, members, await self.loaded_tools(), sourced)

        return replace(spec, expand=expand)

    async def _members_for(self, run: Run) -> Mapping[str, Member]:
        if not callable(self.members):
            return self.members_by_id()
        members = self._by_id(await call_for_run(run, self.members, "members"))
        for member in members.values():
            member.check_shape(run.tree.request.state.shape)
        return members

    async def _sourced_tools(self, members: Mapping[str, Member]) -> Mapping[str, Sourced]:
        """The tools that members have from sources such as MCP servers, if the leader is to know of them."""
        asked = [key for key, member in members.items() if member.has_tool_sources]
        if not self.add_member_tools_to_context or not asked:
            return {}
        try:
            async with asyncio.TaskGroup() as group:
                loading = {key: group.create_task(_loaded(members[key])) for key in asked}
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return {key: task.result() for key, task in loading.items()}

    def _spec(
        self,
        options: RunOptions,
        model: Model,
        members: Mapping[str, Member],
        functions: Mapping[str, RunnableTool],
        sourced: Mapping[str, Sourced],
    ) -> RunnerSpec:
        specs = {
            member_id: _named(member.build_spec(NO_OPTIONS, model), member_id)
            for member_id, member in members.items()
        }
        subteams = {
            key: member.members_by_id() for key, member in members.items() if isinstance(member, Team)
        }
        about = roster(members, subteams, specs if self.add_member_tools_to_context else {}, sourced)
        mode = self._chosen_mode()
        tasks = TaskList(self.get_id(), TeamMembers(specs, self._rules(mode)), self.max_iterations)
        own = self._own_tools(mode, tasks, about) if specs else {}
        tools = self.with_context_tools(functions)
        if taken := own.keys() & tools.keys():
            raise UsageError(f"{self!r}: a tool may not be named {', '.join(taken)}, which is the team's own")
        spec = RunnerSpec(
            id=self.get_id(),
            name=self.name,
            is_team=True,
            model=model,
            tools={**tools, **own},
            prompt=Prompt.of(self, options, with_rules(about, mode) if specs else None),
            review=tasks.review if mode is TeamMode.tasks and specs else None,
            sink=tasks.sink if mode is TeamMode.tasks and specs else None,
            after=self.steps_after(),
            tool_choice=check_tool_choice(self.tool_choice),
            tool_call_limit=self.tool_call_limit,
            max_requests=self.max_requests,
            retries=self.retry_policy(),
            stores_children=self.store_member_responses,
        )
        return with_output(with_input(with_hooks(spec, self), self.input_schema), self, options)

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

    def members_by_id(self) -> Mapping[str, Member]:
        """The direct members under the ids that the leader uses; none where a function makes them.

        Raises:
            UsageError: Two members have the same explicit id, or something is no agent or team.
        """
        return {} if callable(self.members) else self._by_id(self.members)

    def _by_id(self, members: Any) -> dict[str, Member]:
        if not isinstance(members, Sequence) or isinstance(members, str):
            raise UsageError(f"{self!r}: members takes a list of agents and teams, not {members!r}")
        found: dict[str, Member] = {}
        numbers: dict[str, int] = {}
        for member in members:
            if not isinstance(member, Runner):
                raise UsageError(f"{self!r}: a member is an Agent or a Team, not {type(member).__name__}")
            member_id = member.get_id()
            if member_id in found and member.id is not None and found[member_id].id is not None:
                raise UsageError(f"{self!r}: two members have the id {member_id!r}")
            found[_free(member_id, found, numbers)] = member
        return found

    def check_shape(self, shape: Shape) -> None:
        """See that all members can work with a state of this shape."""
        TerminalRunner.check_shape(self, shape)
        if self._chosen_mode() is TeamMode.tasks and isinstance(shape, ModelShape) and not shape.takes(KEY):
            raise UsageError(
                f"{self!r} keeps its task list in the session state: give {shape.model.__name__} a field "
                f"`{KEY}: dict[str, Any] = {{}}`"
            )
        for member in self.members_by_id().values():
            member.check_shape(shape)

    def default_state(self) -> dict[str, Any]:
        """What a new session starts from: the team's own state, and what members bring that it lacks.

        A typed state has defaults of its own, and lacks nothing.
        """
        state = TerminalRunner.default_state(self)
        if not isinstance(self.session_state, Mapping | None):
            return state
        for member in self.members_by_id().values():
            state = fill(state, member.default_state())
        return state

    def _shows_members(self) -> bool:
        return self.show_members_responses


async def _loaded(member: Member) -> Sourced:
    """A member's tools; or why they cannot be had, which is the member's trouble and not the team's."""
    try:
        return await member.loaded_tools()
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
