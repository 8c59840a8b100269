"""Turns a definition into what the engine needs: the model, the tools, the state's type, a run's request."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from functools import partial
from operator import is_
from typing import Any

from kern._json import copied
from kern.db.base import Db
from kern.durable.fingerprint import fingerprint
from kern.errors import UsageError
from kern.models.base import Model
from kern.models.resolve import default_model, resolve
from kern.runner.checks import check_tool_choice
from kern.runner.definition import Definition, default_session, id_of, log_session
from kern.runner.hooks import with_hooks
from kern.runner.input_schema import with_input
from kern.runner.options import NO_OPTIONS, RunOptions
from kern.runner.output_schema import with_output
from kern.runner.past_runs import HISTORY_TOOL, ReadHistoryTool
from kern.runner.prompt import Prompt
from kern.runner.state_tool import STATE_TOOL, state_tool
from kern.runner.summary import Summarize
from kern.runner.tools import check_names, compiled
from kern.runtime.audience import Listen
from kern.runtime.debug import log, show_debug_messages
from kern.runtime.hooked_tool import hooked
from kern.runtime.journaled import Installed
from kern.runtime.request import OnDuplicate, Retries, RunInput
from kern.runtime.run_tree import RunnableTool, RunnerSpec, RunRequest, Step
from kern.state.model_state import ModelStateType, initial_state, state_type_of
from kern.state.overlay import fill
from kern.state.state_spec import StateSpec
from kern.state.state_type import StateType
from kern.tools import Tool, ToolSource
from kern.tools.server_tool import server_tools
from kern.tools.toolkit import loaded, without_sources


def request(definition: Definition, input: RunInput, options: RunOptions) -> RunRequest:
    """Make the request for a run on `input`: the keywords of the call override the constructor's values."""
    user_id = options.user_id if options.user_id is not None else definition.user_id
    debug = definition.debug_mode if options.debug_mode is None else options.debug_mode
    limits = definition.usage_limits if options.usage_limits is None else options.usage_limits
    if debug:
        show_debug_messages()
    if options.session_id is None and definition.session_id is None and definition.db is not None:
        log_session(definition, user_id)
    kept = definition._kept
    if options.leaves_the_spec and isinstance(kept, KeptSpec) and kept.state is not None and kept.fits():
        spec, state = kept.spec, kept.state
    else:
        state = state_spec(definition)
        spec = spec_for(definition, options, state=state)
    journal = definition.journal if options.journal is None else options.journal
    untold: OnDuplicate = "raise" if journal is None else "return"
    return RunRequest(
        spec=spec,
        input=input,
        db=database_of(definition),
        run_id=options.run_id or new_id(),
        session_id=options.session_id or default_session(definition, user_id),
        user_id=user_id,
        state=state,
        session_state=options.session_state,
        overwrite_state=definition.overwrite_db_session_state,
        on_busy=definition.on_busy,
        on_duplicate=None if options.run_id is None else options.on_duplicate or untold,
        dependencies={**(definition.dependencies or {}), **(options.dependencies or {})},
        metadata=copied({**(definition.metadata or {}), **(options.metadata or {})})
        if definition.metadata or options.metadata
        else {},
        timeout=definition.timeout if options.timeout is None else options.timeout,
        usage_limits=limits,
        skip_events=_skipped_events(definition) if definition.store_events else None,
        debug=definition.debug_level if debug else 0,
        journal=journal,
        fingerprint=None if options.run_id is None else fingerprint(input.value, input.messages),
    )


class KeptSpec:
    """The compiled spec of an agent or a team, reused by its next runs until a part of it changes.

    Args:
        definition: The agent or team.
        inherited: The model of the team that it is a member of.
        spec: The compiled spec.
        state: The declaration of the session state; None for a team member.
    """

    __slots__ = ("_below", "_definition", "_lists", "_parts", "inherited", "spec", "state")

    def __init__(
        self, definition: Definition, inherited: Model | None, spec: RunnerSpec, state: StateSpec | None
    ) -> None:
        self.spec = spec
        self.state = state
        self.inherited = inherited
        self._definition = definition
        self._parts = definition._parts_of(definition)
        self._lists = [(part, [*part]) for part in self._parts if isinstance(part, list)]
        own = definition.model if isinstance(definition.model, Model) else inherited
        members = definition._known_members().values()
        self._below = [KeptSpec(member, own, spec, None) for member in members]

    def fits(self) -> bool:
        """Whether nothing has changed: the parts and the items of lists are the same objects as before."""
        definition = self._definition
        if not all(map(is_, definition._parts_of(definition), self._parts)):
            return False
        for part, held in self._lists:
            if len(part) != len(held) or not all(map(is_, part, held)):
                return False
        for member in self._below:  # noqa: SIM110 - a generator costs more than the loop
            if not member.fits():
                return False
        return True


def _keepable(definition: Definition, inherited: Model | None) -> bool:
    """Whether `KeptSpec.fits` would notice every change: no part is a name that the environment resolves, or
    a dict that may be changed in place.
    """
    model = definition.model or inherited
    models = (definition.session_summary_model, definition.parser_model, definition.output_model)
    insides = (definition.tool_choice, definition.output_schema)
    if not isinstance(model, Model):
        return False
    if any(isinstance(one, str) for one in (*models, *(definition.fallback_models or ()))):
        return False
    if any(isinstance(one, Mapping) for one in insides):
        return False
    return all(_keepable(member, model) for member in definition._known_members().values())


def spec_for(
    definition: Definition,
    options: RunOptions,
    inherited: Model | None = None,
    *,
    state: StateSpec | None = None,
) -> RunnerSpec:
    """Return the spec of an agent or a team: the kept one if it still fits, or a new one.

    Args:
        inherited: The model of the team that it is a member of.
        state: The declaration of the session state, for a top-level run.
    """
    kept = definition._kept
    leaves = options.leaves_the_spec
    if (
        leaves
        and isinstance(kept, KeptSpec)
        and kept.inherited is inherited
        and kept.state is state
        and kept.fits()
    ):
        return kept.spec
    spec = definition._spec(NO_OPTIONS if leaves else options, inherited)
    if leaves and kept is None:  # keep from the second run on: an agent that runs once does not pay for it
        definition._kept = "soon"
    elif leaves:
        keeps = _keepable(definition, inherited)
        definition._kept = KeptSpec(definition, inherited, spec, state) if keeps else None
    return spec


def listens(definition: Definition, stream_events: bool | None) -> Listen:
    """Return what a stream yields, by the run's `stream_events` or else the constructor's."""
    everything = definition.stream_events if stream_events is None else stream_events
    return Listen.everything if everything else Listen.content


def spec_of(
    definition: Definition,
    options: RunOptions,
    model: Model,
    functions: Mapping[str, RunnableTool],
    *,
    is_team: bool = False,
    roster: str | None = None,
) -> RunnerSpec:
    """Make the part of a spec that agents and teams have in common; `with_checks` completes it.

    Args:
        functions: The application's own tools by name.
        roster: The description of the members in the prompt of a team's leader.
    """
    return RunnerSpec(
        id=id_of(definition),
        name=definition.name,
        is_team=is_team,
        unnamed=definition.name is None and definition.id is None,
        model=model,
        tools=_with_context_tools(definition, functions),
        server_tools=server_tools(definition.tools or ()),
        prompt=Prompt.of(definition, options, roster),
        after=_steps_after(definition),
        tool_choice=check_tool_choice(definition.tool_choice),
        tool_call_limit=definition.tool_call_limit,
        max_requests=definition.max_requests,
        retries=_retries(definition),
    )


def with_checks(spec: RunnerSpec, definition: Definition, options: RunOptions) -> RunnerSpec:
    """Return `spec` with the hooks of `definition`, its `input_schema`, and its form of the answer."""
    return with_output(with_input(with_hooks(spec, definition), definition.input_schema), definition, options)


def model_of(definition: Definition, inherited: Model | None) -> Model:
    """Return the model that answers: the definition's own, the team's, or the default.

    Raises:
        MissingKeyError: The model has no API key.
    """
    if isinstance(definition.model, Model):
        model = definition.model
    elif isinstance(definition.model, str):
        model = resolve(definition.model)
    elif inherited is not None:
        return inherited
    else:
        model = default_model()
    if Installed.journal is None or not Installed.journal.replays:
        model.check_key()
    return model


def has_sources(definition: Definition) -> bool:
    """Whether some tools come from sources, such as MCP servers, and are known only when a run begins."""
    return any(isinstance(tool, ToolSource) for tool in definition.tools or ())


async def loaded_tools(definition: Definition) -> dict[str, RunnableTool]:
    """Ask the tool sources for their tools, and return all tools by name."""
    return function_tools(definition, await loaded(definition.tools or ()))


def function_tools(definition: Definition, tools: Sequence[Tool] | None = None) -> dict[str, RunnableTool]:
    """Return the tools by name. They are compiled once, and again when a tool or hook is another object.

    Args:
        tools: The tools to use. None: those of the definition, without the tools of sources.
    """
    listed = without_sources(definition.tools or ()) if tools is None else tools
    definition._compiled = made = compiled(listed, definition.tool_hooks, definition._compiled)
    return made[1]


def state_spec(definition: Definition) -> StateSpec:
    """Return the declaration of the session state: default, type, migrations, merge policies.

    Raises:
        UsageError: A member declares another type of state.
    """
    state_type = state_type_of(definition.session_state)
    check_state_type(definition, state_type)
    return StateSpec(
        default=partial(default_state, definition),
        state_type=state_type,
        migrations=definition.state_migrations,
        policies=definition.merge or {},
    )


def check_state_type(
    definition: Definition, state_type: StateType, above: tuple[Definition, ...] = ()
) -> None:
    """Check that an agent or team, and its members, can work with a session state of this type.

    Args:
        above: The teams that `definition` is a member of, outermost first.

    Raises:
        UsageError: One declares a model that the state is not an instance of, or a team is a member of
            itself.
    """
    if definition in above:
        raise UsageError(f"members: {definition!r} is a member of itself, directly or through another team")
    own = state_type_of(definition.session_state)
    if isinstance(own, ModelStateType) and not own.covers(state_type):
        raise UsageError(
            f"{definition!r} declares session_state={own.model.__name__}, but its team does not, "
            f"and they share one state: give the team session_state={own.model.__name__}, or "
            "remove it from the member"
        )
    if isinstance(state_type, ModelStateType):
        for key in definition._state_keys():
            if not state_type.takes(key):
                raise UsageError(
                    f"{definition!r} keeps its {key} in the session state: add the field `{key}: "
                    f"dict[str, Any] = {{}}` to {state_type.model.__name__}"
                )
    for member in definition._known_members().values():
        check_state_type(member, state_type, (*above, definition))


def default_state(definition: Definition) -> dict[str, Any]:
    """Return the state of a new session: the definition's own, with the keys that only members declare.

    A typed state has its own defaults and gets no keys from members.
    """
    state = initial_state(definition.session_state)
    if isinstance(definition.session_state, Mapping | None):
        for member in definition._known_members().values():
            state = fill(state, default_state(member))
    return state


def _with_context_tools(
    definition: Definition, functions: Mapping[str, RunnableTool]
) -> dict[str, RunnableTool]:
    """Return the application's own tools, and those that parameters such as `read_chat_history` add.

    Raises:
        UsageError: Two of them have the same name.
    """
    tools = dict(functions)
    if definition.enable_agentic_state or definition.read_chat_history:
        check_names(tools, definition._tool_names())  # the tools of sources are known only now
    if definition.enable_agentic_state:
        tools[STATE_TOOL] = state_tool(definition.tool_hooks)
    if definition.read_chat_history:
        tools[HISTORY_TOOL] = hooked(ReadHistoryTool(), definition.tool_hooks)
    return tools


def _steps_after(definition: Definition) -> list[Step]:
    """Return the steps that follow the answer."""
    if not definition.enable_session_summaries:
        return []
    writer = definition.session_summary_model
    return [Summarize(resolve(writer) if isinstance(writer, str) else writer)]


def _skipped_events(definition: Definition) -> list[str]:
    """Return the names of the events that are not stored with a run."""
    return [str(name) for name in definition.events_to_skip]


def _retries(definition: Definition) -> Retries:
    """Return what a run does when a model request fails."""
    fallbacks = [resolve(m) if isinstance(m, str) else m for m in definition.fallback_models or ()]
    for model in fallbacks:
        _warn_without_key(model)
    return Retries(
        definition.retries, definition.delay_between_retries, definition.exponential_backoff, fallbacks
    )


_warned: set[str] = set()


def _warn_without_key(model: Model) -> None:
    """Log once that a fallback model has no API key: it would be noticed on the day when it is needed."""
    try:
        model.check_key()
    except UsageError as error:
        if (label := repr(model)) not in _warned:
            _warned.add(label)
            log.warning("the fallback model %s cannot be asked: %s", label, error)


def database_of(definition: Definition) -> Db:
    """Return `db`, or the in-memory database of this object; during a replay, the database of the replay."""
    installed = Installed.journal
    if installed is not None and installed.db is not None:
        return installed.db
    if definition.db is not None:
        return definition.db
    memory = definition._memory
    return definition._own_memory() if memory is None else memory


def new_id() -> str:
    """Make an id for a run: a UUID of version 7, with 48 bits of milliseconds since the epoch and 74 random
    bits.

    Ids that sort by time put new rows next to each other. With random ids each new row of a large table goes
    to another page of the index, and a commit writes whole pages.
    """
    drawn = os.urandom(10)
    high, low = drawn[0] << 8 | drawn[1], drawn[2] << 8 | drawn[3]
    made = time.time_ns() // 1_000_000 & 0xFFFF_FFFF_FFFF
    head = f"{made:012x}"
    return f"{head[:8]}-{head[8:]}-{_VERSION | high & 0xFFF:x}-{_VARIANT | low & 0x3FFF:x}-{drawn[4:].hex()}"


_VERSION = 0x7000
_VARIANT = 0x8000
