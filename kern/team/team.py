"""A team: a leader that has tools to run its members. It runs on the same engine as an agent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Any, ClassVar, Generic

from kern._numbers import check_whole
from kern._traceback import short_errors
from kern.errors import ToolError, UsageError
from kern.models.base import Model
from kern.run.output import AnyRunOutput, ContentT, TeamRunOutput
from kern.runner.batch import Batches
from kern.runner.compile import (
    check_state_type,
    function_tools,
    has_sources,
    loaded_tools,
    model_of,
    spec_for,
    spec_of,
    with_checks,
)
from kern.runner.definition import PARTS, Definition, id_of
from kern.runner.detached import Detached
from kern.runner.options import NO_OPTIONS, RunOptions, check_seconds
from kern.runner.prompt import call_for_run
from kern.runner.schema_types import SchemaOf
from kern.runner.session_state import StateAccess
from kern.runner.sessions import SessionAccess
from kern.runner.terminal import Terminal
from kern.runner.tools import check_names
from kern.runtime.hooked_tool import hooked
from kern.runtime.run_tree import Run, RunnableTool, RunnerSpec
from kern.team.delegation import (
    ALL,
    INFORMATION,
    ONE,
    Broadcast,
    Delegation,
    MemberInformation,
    Rules,
    TeamRoster,
)
from kern.team.mode import TeamMode, chosen_mode
from kern.team.prompt import Sourced, roster, with_rules
from kern.team.tasks import KEY, TASK_TOOLS, TaskList

_ADDED = {
    TeamMode.coordinate: (ONE,),
    TeamMode.route: (ONE,),
    TeamMode.broadcast: (ALL,),
    TeamMode.tasks: TASK_TOOLS,
}
"""The names of the tools by which the leader reaches its members, per mode."""


@short_errors
@dataclass(kw_only=True, eq=False, repr=False, slots=True)
class Team(
    Terminal[TeamRunOutput[ContentT]],
    Batches[TeamRunOutput[ContentT]],
    Detached[TeamRunOutput[ContentT]],
    SessionAccess,
    StateAccess,
    Generic[ContentT],
):
    """A leader that answers with the help of members, which are agents or teams.

        team = Team(members=[buyer, cook], session_state={"shopping_list": []})
        output = await team.arun("Plan a dinner for four")

    The leader and the members share one session state. Runs do not change a team: one object serves any
    number of runs and users at the same time.

    Args:
        members: Agents and teams, or a function that returns them and may take `run_context`. One object may
            be a member of several teams, and run alone, at the same time.
        mode: How the leader works with the members: a `TeamMode` or its name. Default: "coordinate".
        respond_directly: The older spelling of `mode="route"`.
        delegate_to_all_members: The older spelling of `mode="broadcast"`.
        determine_input_for_members: True: the leader writes the tasks. False: members get the user's input
            itself. Images and other media of the input go to members in both cases. Media in members' answers
            become part of the team's output, and the leader reads that they are there.
        share_member_interactions: Show a member what other members did earlier in the run.
        add_team_history_to_members: Show a member the input and the answers of the team's last runs.
        num_team_history_runs: How many of the team's last runs.
        get_member_information_tool: Give the leader a tool that describes the members.
        add_member_tools_to_context: Tell the leader which tools the members have. MCP servers of members are
            asked for their tools when the run begins.
        member_timeout: Seconds that a member may take for one task. A member that takes longer fails: the
            leader reads that, and the run goes on.
        max_iterations: In the mode "tasks": how often the leader is sent back to tasks that are still open.
        show_members_responses: `print_response` also shows what members did and answered.
        store_member_responses: Store the outputs of the members in the team's database row, too. Each has a
            row of its own in any case.
        stream_member_events: With `stream_events=True`, the team's stream contains the events of members.
        name: A name for people to read, and for the leader of a team that it is a member of.
        id: Its id in events and in the database. Default: the name in lower case with hyphens, or random.
        role: What it is responsible for. Part of its system message; the leader of its team reads it, too.
        description: What it is. The system message begins with this text.
        model: A `Model`, or a string "provider:id" such as "anthropic:claude-sonnet-4-5". Default: a member
            uses the model of its team; otherwise it is the one that the environment variable KERN_MODEL
            names, or else OpenAI's `gpt-5.2`.
        db: The database that stores the sessions. Default: they are kept in memory for as long as this object
            lives.
        user_id: The owner of the sessions, for runs that pass no `user_id`.
        session_id: The session of runs that pass no `session_id`. Default: a random one for this object and
            user, so that each start of a program begins a new session, also with a `db`. The first run logs
            its id (level info, logger "kern").
        journal: Records each step of a run, so that another process can go on with the run after a crash; see
            `DbJournal`.
        metadata: A dict that is stored with every run.
        session_state: The state of a new session: a dict, or a pydantic model as a class (its defaults) or as
            an instance (its values). With a model, functions see the state as an instance of it.
        state_migrations: Functions that take a stored state, a dict, and return it upgraded by one version.
            The version of a state is the number of functions that have been applied to it.
        merge: Rules for values that two processes change at the same time, by key, dotted path or JSON
            Pointer: `{"count": add}`, from `kern.state` or your own. The rules of a team apply, not those of
            its members.
        on_busy: What a run does if its session has another run in progress, in this process or another:
            "share" the state and run beside it, "queue" until that run has ended, or "reject" with a
            `SessionBusyError`. A run with "share" begins even if the run in progress has "queue" or "reject".
        add_session_state_to_context: Show the state to the model, as JSON in the system message.
        enable_agentic_state: Give the model a tool that updates the state.
        overwrite_db_session_state: A run's `session_state=` replaces the stored state instead of being merged
            into it.
        resolve_in_context: Replace `{key}` in the texts below with values of the session state. A text that a
            function returns is used as it is.
        instructions: A text, a list of texts, or a function that returns either; the function may take
            `run_context`. Part of the system message.
        system_message: Your own system message, in place of the generated one.
        system_message_role: The role of the system message.
        expected_output: What a good answer looks like.
        additional_context: A text at the end of the system message.
        additional_input: Messages between the system message and the input, such as examples.
        introduction: A message that opens each new session, as if the model had sent it before the first
            input.
        markdown: Ask for Markdown, and render it in `print_response`.
        use_instruction_tags: Put the instructions between `<instructions>` tags.
        add_datetime_to_context: Tell the model the current time.
        timezone_identifier: The time zone of that time: an IANA name such as "Europe/Berlin". Default: UTC.
        add_name_to_context: Tell the model its name.
        dependencies: Values for `{key}` in the texts, and for `run_context.dependencies`.
        add_dependencies_to_context: Show the dependencies to the model, with the input. They do not appear in
            the history.
        add_history_to_context: Put earlier runs of the session into the prompt.
        num_history_runs: How many earlier runs. A run that failed before any text or tool call does not
            count.
        num_history_messages: The maximum number of messages from those runs; the newest are kept. None: no
            limit.
        max_tool_calls_from_history: The maximum number of tool calls from those runs; the newest are kept.
            None: no limit.
        read_chat_history: Give the model a tool that reads earlier messages of the session.
        enable_session_summaries: Keep a summary of the session. One more request after each run updates it.
            If that request fails, the old summary stays and a warning is logged.
        add_session_summary_to_context: Show the summary to the model, in the system message.
        session_summary_model: The model that writes the summary. Default: the run's own model.
        input_schema: A pydantic model class. The input is then a dict, JSON text or an instance that fits it.
            The leader of a team sees the schemas of its members, and writes their tasks as JSON.
        output_schema: The shape of the answer: a JSON schema, or a type that pydantic can validate (a model
            class, a dataclass, a TypedDict, `list[A]`, `A | B`, `Literal["a", "b"]`, int...). `content` is
            then a value of that type, and None unless the run was completed with one. An answer that does not
            fit is sent back to the model with the error, a few times; then the run fails with
            `ModelBehaviorError`. Type checkers infer the type of `content` from a class. For a JSON schema, a
            union or a Literal it is Any; state it: `a: Agent[Literal["x", "y"]] = Agent(...)`.
        use_json_mode: Describe the schema in the prompt, even if the provider could enforce it.
        parser_model: A model that turns the text of the run's own model into the structured answer. Its
            requests count towards the limits and are retried like those of the run's own model; the
            `fallback_models` apply to them, too.
        output_model: A model that writes the final answer from the whole conversation. Its requests count and
            are retried in the same way.
        pre_hooks: Functions that are called before the run. A hook names as parameters what it needs:
            run_input, run_context, run_id, session_id, user_id, agent_id, team_id, metadata, dependencies,
            debug_mode. It may change `run_input.input_content`. `InputCheckError` refuses the run; any other
            error becomes a `HookError`. Both fail the run, unlike an error in `tool_hooks`.
        post_hooks: Functions that are called with the finished answer. They take the same parameters and
            `run_output`, whose content they may change. `OutputCheckError` refuses the answer; any error
            fails the run.
        tools: Functions, `Function`s, `Toolkit`s and sources such as `MCPTools` that the model may call.
        tool_hooks: Functions that wrap every tool call, the first one outermost; see `Function`. An error in
            a hook counts as an error of the tool: the model gets its text, and the run goes on. In a team the
            hooks also wrap delegations. A delegation does not hold the session state: a hook may use the
            state before and after `function_call`, in a `run_context.transaction()`, but not across it. After
            a pause in a member's run the hook is called again.
        tool_call_limit: The maximum number of tool calls in a run. Then the model is asked once more, with
            `tool_choice="none"`; if it still calls a tool, the run ends with `UsageLimitExceeded`.
        max_requests: The maximum number of model requests in a run, failed ones included; a run that needs
            more ends with `UsageLimitExceeded`. A member's run has a count of its own. None: no limit.
        tool_choice: "auto", "none", "required" or {"name": ...}. A choice that forces a call applies until
            the model has called a tool; from then on the choice is "auto".
        timeout: The maximum duration of a run in seconds; a run that takes longer ends with
            `RunDeadlineExceeded`. For members see `member_timeout`.
        usage_limits: What a run may use together with all runs below it; a run that needs more ends with
            `UsageLimitExceeded`. `UsageLimits` apply to each run by itself; a `UsageBudget` is shared by all
            runs that get it.
        retries: How often a failed model request is repeated, after the retries of the model itself. Tools
            that have already run are not run again.
        delay_between_retries: Seconds before each repetition.
        exponential_backoff: Double the delay each time.
        fallback_models: Models to ask, in this order, once the model has failed for good.
        store_events: Store the events of a run in its output and in its database row.
        events_to_skip: Events that are not stored. Default: those that come once per token.
        stream: The default of `stream` for `print_response` and `cli_app`.
        stream_events: The default of `stream_events` for runs with `stream=True`: True yields every event,
            False only the text of the answer.
        debug_mode: Log prompts and tool calls, to the logger "kern".
        debug_level: 2 also logs the tools that each request offers, and the usage of each answer.
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
    output_schema: SchemaOf[ContentT] | None = None

    def _check(self) -> None:
        Definition._check(self)
        check_seconds("member_timeout", self.member_timeout)
        check_whole("num_team_history_runs", self.num_team_history_runs)
        check_whole("max_iterations", self.max_iterations)
        self._chosen_mode()
        self._known_members()

    _output_type: ClassVar[type[AnyRunOutput]] = TeamRunOutput
    _parts_of: ClassVar[attrgetter[tuple[Any, ...]]] = attrgetter(
        *(*PARTS, "members", "mode", "respond_directly", "delegate_to_all_members", "max_iterations"),
        *("determine_input_for_members", "share_member_interactions", "add_team_history_to_members"),
        *("num_team_history_runs", "get_member_information_tool", "add_member_tools_to_context"),
        *("member_timeout", "store_member_responses", "stream_member_events"),
    )

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
            check_state_type(member, run.tree.request.state.state_type, (self,))
        return members

    async def _sourced_tools(self, members: Mapping[str, Definition]) -> Mapping[str, Sourced]:
        """The tools that members load from sources such as MCP servers, if the leader sees their tools.

        Sources are loaded at the same time, since each is a round trip to a server.
        """
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
        specs = {key: _named(spec_for(member, NO_OPTIONS, model), key) for key, member in members.items()}
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
        """Add the tools by which the leader reaches its members to `spec`."""
        tasks = TaskList(spec.id, TeamRoster(specs, self._rules(mode)), self.max_iterations)
        own = self._own_tools(mode, tasks, about)
        check_names(spec.tools, dict.fromkeys(own, "the team"))
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
            raise UsageError(f"members must be a list of agents and teams, not {members!r}")
        found: dict[str, Definition] = {}
        numbers: dict[str, int] = {}
        for member in members:
            if not isinstance(member, Definition):
                raise UsageError(f"members: each member must be an Agent or a Team, not {member!r}")
            member_id = id_of(member)
            if member_id in found and member.id is not None and found[member_id].id is not None:
                raise UsageError(
                    f"members: two members have the id {member_id!r}; give one of them another id"
                )
            found[_free(member_id, found, numbers)] = member
        return found

    def _tool_names(self) -> Mapping[str, str]:
        mode = self._chosen_mode()
        names = {**Definition._tool_names(self), **dict.fromkeys(_ADDED[mode], f"a team in the mode {mode}")}
        if self.get_member_information_tool:
            names[INFORMATION] = "get_member_information_tool"
        return names

    def _state_keys(self) -> Sequence[str]:
        return (KEY,) if self._chosen_mode() is TeamMode.tasks else ()

    def _shows_members(self) -> bool:
        return self.show_members_responses


async def _loaded(member: Definition) -> Sourced:
    """Load a member's tools. An error is returned, not raised: the team runs without that member's tools."""
    try:
        return await loaded_tools(member)
    except ToolError as error:
        return error


def _free(member_id: str, taken: Mapping[str, object], numbers: dict[str, int]) -> str:
    """`member_id`, with a number appended if it is taken.

    Args:
        numbers: The last number that was given to each id; updated.
    """
    free = member_id
    while free in taken:
        numbers[member_id] = number = numbers.get(member_id, 1) + 1
        free = f"{member_id}-{number}"
    return free


def _named(spec: RunnerSpec, member_id: str) -> RunnerSpec:
    """The member's spec under the id that the member has in this team."""
    return spec if spec.id == member_id else replace(spec, id=member_id)
