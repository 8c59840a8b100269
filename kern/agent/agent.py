"""An agent: a model with instructions, tools and a session."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Generic

from kern._traceback import short_errors
from kern.models.base import Model
from kern.run.output import ContentT, RunOutput
from kern.runner.batch import Batches
from kern.runner.compile import function_tools, has_sources, loaded_tools, model_of, spec_of, with_checks
from kern.runner.detached import Detached
from kern.runner.options import RunOptions
from kern.runner.schema_types import SchemaOf
from kern.runner.session_state import StateAccess
from kern.runner.sessions import SessionAccess
from kern.runner.terminal import Terminal
from kern.runtime.run_tree import Run, RunnerSpec


@short_errors
@dataclass(kw_only=True, eq=False, repr=False, slots=True)
class Agent(
    Terminal[RunOutput[ContentT]],
    Batches[RunOutput[ContentT]],
    Detached[RunOutput[ContentT]],
    SessionAccess,
    StateAccess,
    Generic[ContentT],
):
    """A model with instructions, tools and a session.

        agent = Agent(model=OpenAIResponses(id="gpt-5.2"), tools=[add_item], session_state={"items": []})
        output = await agent.arun("Add milk")

    Runs do not change an agent: one object serves any number of runs and users at the same time.

    Args:
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

    output_schema: SchemaOf[ContentT] | None = None

    def _spec(self, options: RunOptions, inherited_model: Model | None = None) -> RunnerSpec:
        model = model_of(self, inherited_model)
        spec = with_checks(spec_of(self, options, model, function_tools(self)), self, options)
        if not has_sources(self):
            return spec

        async def expand(run: Run) -> RunnerSpec:
            return with_checks(spec_of(self, options, model, await loaded_tools(self)), self, options)

        return replace(spec, expand=expand)
