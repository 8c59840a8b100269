"""A team: a leader whose members are tools. It has no loop of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import UnionType
from typing import Any, ClassVar, Generic

from kern.errors import ToolError, UsageError
from kern.models.base import Model
from kern.run.output import AnyRunOutput, ContentT, TeamRunOutput
from kern.runner.batch import Batches
from kern.runner.checks import check_count, check_seconds
from kern.runner.compile import (
    check_state_type,
    function_tools,
    has_sources,
    loaded_tools,
    model_of,
    spec_of,
    with_checks,
)
from kern.runner.definition import Definition, id_of
from kern.runner.detached import Detached
from kern.runner.options import NO_OPTIONS, RunOptions
from kern.runner.prompt import call_for_run
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
"""The tools that the leader works with its members by."""


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

    Leader and members share one session state. A team is not changed by its runs: one object serves any
    number of runs and users at the same time.

    Args:
        members: Agents and teams, or a function that returns them and may take `run_context`. One object may
            be a member of several teams, and run alone, at the same time.
        mode: How the leader works with the members: a `TeamMode` or its name. Default: "coordinate".
        respond_directly: The older spelling of `mode="route"`.
        delegate_to_all_members: The older spelling of `mode="broadcast"`.
        determine_input_for_members: The leader words the tasks; otherwise members get the user's input
            itself. Images and other media of the input go to members either way. Media in members' answers
            are part of the team's output, and the leader is told of them.
        share_member_interactions: Tell a member what other members did earlier in the run.
        add_team_history_to_members: Tell a member what the team was asked and answered in its last runs.
        num_team_history_runs: How many of them.
        get_member_information_tool: Give the leader a tool that describes the members.
        add_member_tools_to_context: Tell the leader which tools the members have. MCP servers of members are
            asked when the run begins.
        member_timeout: Seconds that a member may take for one task.
        max_iterations: In the mode "tasks": how often the leader is sent back to tasks that are still open.
        show_members_responses: `print_response` shows what members did and answered.
        store_member_responses: The team's row in the database also holds the outputs of its members; each has
            a row of its own in any case.
        stream_member_events: With `stream_events=True`: the events of members are part of the team's.
        name: Its name, for people and for a team's leader.
        id: Its id in events and in the database. Default: the name in lower case with hyphens, or a random
            id.
        role: What it is responsible for; part of its system message, and read by a team's leader.
        description: What it is; opens the system message.
        model: A model, or a text "provider:id". A member without one uses its team's. Without any: what the
            environment variable KERN_MODEL says, or else OpenAI's `gpt-5.2`.
        db: The database that stores the sessions. Without one they are kept in memory, as long as this object
            lives.
        user_id: The owner of the sessions, for runs that pass no `user_id`.
        session_id: The session of runs that pass no `session_id`. Default: a random one for this object and
            user, so that each start of a program begins a new session, also with a `db`. The first run logs
            its id (level info, logger "kern").
        journal: Keeps each step of a run, so that another process can go on with it; see `DbJournal`.
        metadata: A dict that is stored with every run.
        session_state: The state of a new session: a dict; or a pydantic model, as a class (its defaults) or
            an instance (its values). Functions then see the state as an instance of that model.
        state_migrations: Functions that upgrade a stored state, a dict, by one version each. The version of a
            state is the number of functions that have been applied to it.
        merge: Rules for values that two processes change at the same time, by key, dotted path or JSON
            Pointer: `{"count": add}`, from `kern.state` or your own. The rules of a team apply, not those of
            its members.
        on_busy: What a run does if its session has another run in progress, in this process or another:
            "share" the state and run beside it, "queue" until it has ended, or "reject" with a
            `SessionBusyError`. A run that shares does not check whether others want the session to
            themselves.
        add_session_state_to_context: Show the state to the model, as JSON in the system message.
        enable_agentic_state: Give the model a tool that updates the state.
        overwrite_db_session_state: A run's `session_state=` replaces the stored state instead of being merged
            into it.
        resolve_in_context: Replace `{key}` in the texts below by values of the state. A text that a function
            returned is final and stays as it is.
        instructions: A text, a list of texts, or a function that returns either; the function may take
            `run_context`.
        system_message: Your own system message, in place of the generated one.
        system_message_role: The role of the system message.
        expected_output: What a good answer looks like.
        additional_context: A text at the end of the system message.
        additional_input: Messages between the system message and the input, such as examples.
        introduction: What it has said before the first input of a new session.
        markdown: Ask for Markdown, and render it in `print_response`.
        use_instruction_tags: Put the instructions between `<instructions>` tags.
        add_datetime_to_context: Tell the model the current time.
        timezone_identifier: The time zone of that time: an IANA name such as "Europe/Berlin". Default: UTC.
        add_name_to_context: Tell the model its name.
        dependencies: Values for `{key}` in the texts, and for `run_context.dependencies`.
        add_dependencies_to_context: Show them to the model, with the input; they do not appear in the
            history.
        add_history_to_context: Begin the prompt with earlier runs of the session.
        num_history_runs: How many of them. A run that failed before any text or tool call does not count.
        num_history_messages: The most messages of them, the newest; None: all.
        max_tool_calls_from_history: The most tool calls of them, the newest; None: all.
        read_chat_history: Give the model a tool that reads earlier messages of the session.
        enable_session_summaries: Keep a summary of the session, which one more request renews after each run.
            If that request fails, the old summary stays and a warning is logged.
        add_session_summary_to_context: Show the summary to the model, in the system message.
        session_summary_model: The model that writes the summary. Default: the run's own model.
        input_schema: A pydantic model class. The input is then a dict, JSON text or an instance that fits it.
            The leader of a team is shown the schema of a member, and words the member's tasks as JSON.
        output_schema: What the answer has to look like: a JSON schema, or a type that pydantic knows (a model
            class, a dataclass, a TypedDict, `list[A]`, `A | B`, `Literal["a", "b"]`, int...). `content` is
            then a value of that type, and None unless the run was completed with one. An answer that does not
            fit is sent back to the model with the error, a few times; then the run fails with
            `ModelBehaviorError`. Type checkers know the type of `content` from that of the schema; tell them
            that of a JSON schema or a union: `Agent[dict[str, Any]](output_schema={...})`.
        use_json_mode: Describe the schema in the prompt, even if the provider could enforce it.
        parser_model: A model that turns the text of the run's own model into the structured answer. Its
            requests count, and are retried, like those of the run's own model, with the `fallback_models` if
            need be.
        output_model: A model that writes the final answer, from the whole conversation. Its requests count
            and are retried likewise.
        pre_hooks: Functions that are called before the run. Each asks by parameter name for what it needs:
            run_input, run_context, run_id, session_id, user_id, agent_id, team_id, metadata, dependencies,
            debug_mode. They may change `run_input.input_content`. `InputCheckError` refuses the run; any
            other error becomes a `HookError`. Either fails the run, unlike an error in `tool_hooks`.
        post_hooks: Functions that are called once the answer is there; they may also ask for run_output, and
            change its content. `OutputCheckError` refuses the answer; any error fails the run.
        tools: Functions, `Function`s, `Toolkit`s and sources such as `MCPTools` that the model may call.
        tool_hooks: Functions around every tool call, the first one outermost; see `Function`. An error in a
            hook counts as an error of the tool: the model is told, and the run goes on. In a team they also
            go around delegations, which do not hold the state: such a hook may have it before and after
            `function_call`, in a `run_context.transaction()`, but not during it; and after a pause in a
            member's run it is called again.
        tool_call_limit: The most tool calls of a run. Then the model is asked once more, with
            `tool_choice="none"`; if it calls a tool even so, the run ends with `UsageLimitExceeded`.
        max_requests: The most model requests of a run, failed ones included; then `UsageLimitExceeded`.
            `UsageLimits` are each run's own, a `UsageBudget` is shared. A
            member's run counts its own. None: no limit.
        tool_choice: "auto", "none", "required" or {"name": ...}. A choice that forces a call holds until the
            model has called a tool; from then on it is "auto".
        timeout: Seconds that a run may take; then `RunDeadlineExceeded`. For a member see `member_timeout`.
        usage_limits: What a run and all runs below it may use; then `UsageLimitExceeded`.
        retries: How often a failed model request is repeated, after the retries of the model itself. Tools
            that have run are not run again.
        delay_between_retries: Seconds before each repetition.
        exponential_backoff: Double the delay each time.
        fallback_models: Models that are asked, in this order, when the model has failed for good.
        store_events: Store the events of a run in its output and its row.
        events_to_skip: Events that are not stored. Default: those that are made per token.
        stream: Whether `print_response` and `cli_app` stream.
        stream_events: What a run with `stream=True` yields if it does not say: every event, or the text of
            the answer.
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
    output_schema: type[ContentT] | Mapping[str, Any] | UnionType | None = None

    def __post_init__(self) -> None:
        Definition.__post_init__(self)
        check_seconds("member_timeout", self.member_timeout)
        check_count("num_team_history_runs", self.num_team_history_runs)
        check_count("max_iterations", self.max_iterations)
        self._chosen_mode()
        self._known_members()

    _output_type: ClassVar[type[AnyRunOutput]] = TeamRunOutput
    _has_members: ClassVar[bool] = True

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
