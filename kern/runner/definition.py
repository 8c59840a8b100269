"""What an agent and a team have in common: the parameters, copies, and the ids and database of their own."""

from __future__ import annotations

import copy
import re
import threading
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, Self, get_args

import pydantic

from kern.db.base import Db
from kern.db.in_memory import InMemoryDb
from kern.errors import UsageError
from kern.messages import Message, Role
from kern.models.base import Model
from kern.models.resolve import load
from kern.run.events import RunEvent, TeamRunEvent
from kern.runner.checks import check_definition
from kern.runner.options import RunOptions
from kern.runtime.request import OnBusy
from kern.runtime.spec import RunnableTool, RunnerSpec
from kern.state.merge import Policies, policy_path
from kern.state.spec import Migration
from kern.state.typed import initial_state
from kern.tools import Tool
from kern.tools.arguments import load_pydantic
from kern.usage import UsageLimits

Instructions = str | Sequence[str] | Callable[..., Any]

_ON_BUSY = get_args(OnBusy)
_mutex = threading.Lock()


@dataclass(kw_only=True, eq=False, repr=False, slots=True, weakref_slot=True)
class Definition:
    """An agent or a team as the application defines it. Read-only while it runs, however often at once.

    Args:
        name: What people and the team's leader call it.
        id: What programs call it; the name as a slug if not given.
        role: What it is for; a team's leader reads it.
        description: What it is; opens the system message.
        model: A model, or "provider:id". A member without one takes its team's; nobody has one:
            what the variable KERN_MODEL says, or OpenAI's `gpt-5.2`.
        db: Where sessions are kept; without one, in memory, for as long as this object lives.
        user_id: Whose sessions they are, where a run does not say.
        session_id: The default session.
        metadata: Noted on every run.
        session_state: What new sessions start from: a dict; or a pydantic model, a class (its defaults) or an
            instance (its values), which functions then see as such.
        state_migrations: Each turns the stored state, as a dict, into what the next version of the
            application expects; a state's version is the number of those that have been applied to it.
        merge: Rules for what two processes change at the same time, by key, dotted path or JSON Pointer:
            `{"count": add}`, from `kern.state` or your own. Of a team's members none is used.
        on_busy: What a run does when its session has one already, in this process or another: "share" the
            state and work beside it, "queue" until that one has ended, or "reject" with a `SessionBusyError`.
            Runs that share do not look whether others want the session to themselves.
        add_session_state_to_context: Show the state to the model, as JSON in the system message.
        enable_agentic_state: Give the model a tool that updates the state.
        overwrite_db_session_state: A run's `session_state=` replaces the stored state, and is not merged in.
        resolve_in_context: Replace `{key}` in the texts below by values of the state; not in what a function
            has returned, which is final.
        instructions: A text, several, or a function (of `run_context`, if it wants it) that returns such.
        system_message: A system message of your own, instead of the one that is put together.
        system_message_role: Its role, "system" if not given.
        expected_output: What a good answer looks like.
        additional_context: Closes the system message.
        additional_input: Messages between the system message and the input, such as examples.
        introduction: What the agent or team has said before a new session's first input.
        markdown: Ask for Markdown, and render it in `print_response`.
        use_instruction_tags: Put the instructions between tags.
        add_datetime_to_context: Tell the model the time.
        timezone_identifier: For that: an IANA name such as "Europe/Berlin"; UTC if not given.
        add_name_to_context: Tell the model its name.
        dependencies: Values for `{templates}` and for `run_context.dependencies`.
        add_dependencies_to_context: Show them to the model with the input; later runs are not told of them.
        add_history_to_context: Begin with what was said and done in earlier runs of the session.
        num_history_runs: How many of them; a run that failed before any text or call does not count.
        num_history_messages: Of those, the newest so many messages; None for all.
        max_tool_calls_from_history: Of those, the newest so many tool calls; None for all.
        read_chat_history: Give the model a tool that looks up what was said earlier.
        enable_session_summaries: Keep a summary of the session, renewed after each run by one more request.
            If that fails, the old one stays, which is logged.
        add_session_summary_to_context: Show it to the model, in the system message.
        session_summary_model: Who writes it; the run's own model if not given.
        tools: Functions, `Function`s, `Toolkit`s and sources such as `MCPTools` that the model may call.
        tool_hooks: Functions round every call of a tool, the first one outermost; see `Function`. An error
            in one is that call's result, as an error of the tool's own is: the model is told, and the run
            goes on. They go round a team's delegations too, which hold no state: there a hook may have it
            before and after `function_call`, in a `run_context.transaction()`, but not during it; and after
            a pause in a member's run it is called anew.
        input_schema: A pydantic model class: the input is a dict, JSON text or an instance that fits it. A
            team's leader is told the schema of a member's, and words its tasks as JSON.
        output_schema: A pydantic model class or a JSON schema: what the answer has to look like. `content` is
            then an instance of the class, or the JSON value. An answer that does not fit is sent back to the
            model with the error, a few times, then `ModelBehaviorError`.
        use_json_mode: Ask for the JSON in words, even of a model whose provider could enforce the schema.
        parser_model: Makes the structured answer of the text that the model has written. Its requests count
            and are made again as the model's own are, by the `fallback_models` if need be.
        output_model: Writes the final answer, from the conversation that the model has led. Likewise.
        pre_hooks: Functions before the run, with what they ask for by parameter names: run_input,
            run_context, run_id, session_id, user_id, agent_id, team_id, metadata, dependencies, debug_mode.
            They may change `run_input.input_content`. `InputCheckError` refuses the run; any other error is
            a `HookError`. Either fails the run, unlike an error in `tool_hooks`.
        post_hooks: The same once the answer is there, with run_output, whose content they may change.
            `OutputCheckError` refuses it; an error fails the run here too.
        tool_call_limit: How many tool calls a run may make. Then the model is asked once more, with
            `tool_choice="none"`; if it calls a tool all the same, the run ends with `UsageLimitExceeded`.
        tool_choice: "auto", "none", "required" or {"name": ...}. One that forces a call holds until the model
            has called a tool, whatever came of the call; from then on it is "auto".
        max_requests: How many requests to models a run may make, those that failed included; then
            `UsageLimitExceeded`. A member's run counts its own. None for any number.
        timeout: Seconds that a run may take; then `RunDeadlineExceeded`. As a member: see `member_timeout`.
        usage_limits: What a run and all runs below it may use; then `UsageLimitExceeded`.
        retries: How often a model request that has failed for good is made again. Tools that have run are not
            run again.
        delay_between_retries: Seconds before that.
        exponential_backoff: Double the delay each time.
        fallback_models: Asked in this order when the model has failed for good.
        store_events: Keep a run's events with it, in its output and its row.
        events_to_skip: But for these; by default those that are made per token.
        stream: Whether `print_response` and `cli_app` stream.
        stream_events: What `stream=True` yields where a run does not say: every event, or the answer's text.
        debug_mode: Log prompts and tool calls, through the logger "kern".
        debug_level: 2 logs also the tools that each request offers, and what it used.
    """

    name: str | None = None
    id: str | None = None
    role: str | None = None
    description: str | None = None
    model: Model | str | None = None
    db: Db | None = None
    user_id: str | None = None
    session_id: str | None = None
    metadata: Mapping[str, Any] | None = None

    session_state: Mapping[str, Any] | pydantic.BaseModel | type[pydantic.BaseModel] | None = None
    state_migrations: Sequence[Migration] = ()
    merge: Policies | None = None
    on_busy: OnBusy = "share"
    add_session_state_to_context: bool = False
    enable_agentic_state: bool = False
    overwrite_db_session_state: bool = False
    resolve_in_context: bool = True

    instructions: Instructions | None = None
    system_message: str | Callable[..., Any] | Message | None = None
    system_message_role: Role = "system"
    expected_output: str | None = None
    additional_context: str | None = None
    additional_input: Sequence[str | Message] | None = None
    introduction: str | None = None
    markdown: bool = False
    use_instruction_tags: bool = False
    add_datetime_to_context: bool = False
    timezone_identifier: str | None = None
    add_name_to_context: bool = False
    dependencies: Mapping[str, Any] | None = None
    add_dependencies_to_context: bool = False

    add_history_to_context: bool = False
    num_history_runs: int = 3
    num_history_messages: int | None = None
    max_tool_calls_from_history: int | None = None
    read_chat_history: bool = False
    enable_session_summaries: bool = False
    add_session_summary_to_context: bool = False
    session_summary_model: Model | str | None = None

    input_schema: type[pydantic.BaseModel] | None = None
    output_schema: type[pydantic.BaseModel] | Mapping[str, Any] | None = None
    use_json_mode: bool = False
    parser_model: Model | str | None = None
    output_model: Model | str | None = None
    pre_hooks: Sequence[Callable[..., Any]] = ()
    post_hooks: Sequence[Callable[..., Any]] = ()

    tools: Sequence[Tool] | None = None
    tool_hooks: Sequence[Callable[..., Any]] = ()
    tool_call_limit: int | None = None
    max_requests: int | None = 200
    tool_choice: str | dict[str, Any] | None = None

    timeout: float | None = None
    usage_limits: UsageLimits | None = None
    retries: int = 0
    delay_between_retries: float = 1.0
    exponential_backoff: bool = False
    fallback_models: Sequence[Model | str] | None = None

    store_events: bool = False
    events_to_skip: Collection[RunEvent | TeamRunEvent | str] = (
        RunEvent.run_content,
        TeamRunEvent.run_content,
        RunEvent.reasoning_content_delta,
        TeamRunEvent.reasoning_content_delta,
    )
    stream: bool = False
    stream_events: bool = False
    debug_mode: bool = False
    debug_level: Literal[1, 2] = 1

    _own_id: str = field(init=False)
    _own_session: str | None = field(init=False)
    _memory: InMemoryDb | None = field(default=None, init=False)
    _compiled: tuple[tuple[Any, ...], dict[str, RunnableTool]] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        check_definition(self)
        _load(self)
        self._own_session = None
        self._own_id = self.id or (slug(self.name) if self.name else "") or self._session_of_its_own()[:8]
        if self.on_busy not in _ON_BUSY:
            raise UsageError(f"on_busy is one of {', '.join(_ON_BUSY)}, not {self.on_busy!r}")
        if self.debug_level not in (1, 2):
            raise UsageError(f"debug_level is 1 or 2, not {self.debug_level!r}")
        for name in self.merge or ():
            policy_path(name)
        initial_state(self.session_state)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self.name!r}, id={self._own_id!r})"

    def __getstate__(self) -> Any:
        """For pickle: all but what is made of it as it runs. Sessions kept in its own memory stay here."""
        return self._parts(memory=None)

    def __copy__(self) -> Self:
        """The copy has the default sessions, ids and memory of this one."""
        return self._twin(lambda value: value, {})

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Likewise; a database is the same one in the copy."""
        return self._twin(lambda value: copy.deepcopy(value, memo), memo)

    def _twin(self, copied: Callable[[Any], Any], memo: dict[int, Any]) -> Self:
        memory = database_of(self) if self.db is None else None
        memo[id(self)] = twin = object.__new__(type(self))
        for part in self._parts(memory=memory):
            for name, value in (part or {}).items():
                setattr(twin, name, copied(value))
        return twin

    def _parts(self, *, memory: Db | None) -> tuple[dict[str, Any] | None, dict[str, Any]]:
        """The attributes of a copy: those of a subclass of the application's, and those that are slots."""
        self._session_of_its_own()
        given: Any = object.__getstate__(self)
        return given[0], {**given[1], "_memory": memory, "_compiled": None}

    def _session_of_its_own(self) -> str:
        """A random id, made when it is first asked for: it is a third of what making an agent costs."""
        with _mutex:
            if self._own_session is None:
                self._own_session = str(uuid.uuid4())
            return self._own_session

    # What agents and teams differ in, for `kern.runner.compile`.

    def _spec(self, options: RunOptions, inherited_model: Model | None = None) -> RunnerSpec:
        """What the engine is told of this agent or team for one run."""
        raise NotImplementedError

    def _known_members(self) -> Mapping[str, Definition]:
        """The members by id, as far as they are known before a run."""
        return {}

    def _state_keys(self) -> Sequence[str]:
        """The top-level keys of the session state that the runtime itself writes for it."""
        return ()


def id_of(definition: Definition) -> str:
    """The id that runs are stored under: `id`, or the name as a slug, or a generated one."""
    return definition.id or definition._own_id


def default_session(definition: Definition, user_id: str | None) -> str:
    """The session of runs that name none: one for each user."""
    if definition.session_id is not None:
        return definition.session_id
    own = definition._session_of_its_own()
    return own if user_id is None else str(uuid.uuid5(uuid.UUID(own), user_id))


def database_of(definition: Definition) -> Db:
    """`db`, or the memory of this object."""
    if definition.db is not None:
        return definition.db
    with _mutex:
        if definition._memory is None:
            definition._memory = InMemoryDb()
        return definition._memory


def _load(definition: Definition) -> None:
    """Import what `import kern` leaves out and a run needs: here, where it holds up no event loop.

    Raises:
        UsageError: A model is of no known provider.
    """
    load_pydantic()
    if not isinstance(definition.model, Model):
        load(definition.model)
    others = (definition.session_summary_model, definition.parser_model, definition.output_model)
    for model in (*others, *(definition.fallback_models or ())):
        if isinstance(model, str):
            load(model)


@lru_cache(maxsize=1024)
def slug(name: str) -> str:
    """A name as an id: lower case, letters, digits and single hyphens."""
    return re.sub(r"[^\w]+", "-", name.lower()).strip("-_")
