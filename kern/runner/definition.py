"""What an agent and a team have in common: parameters, copies, generated ids, the in-memory database."""

from __future__ import annotations

import copy
import re
import reprlib
import threading
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Self, get_args

import pydantic

from kern._habits import KEYWORDS, RUNNER_ATTRIBUTES, explain_attribute
from kern._ids import check_given_id
from kern._keywords import check_arguments
from kern._log import named
from kern._traceback import ShortTraceback
from kern.budget import Limits
from kern.db.base import Db
from kern.db.in_memory import InMemoryDb
from kern.durable.journal import Journal
from kern.errors import UsageError
from kern.messages import Message, Role
from kern.models.base import Model
from kern.models.resolve import load
from kern.run.events import RunEvent, TeamRunEvent
from kern.run.output import AnyRunOutput, RunOutput
from kern.runner.assignment import ChecksAssignments, finish, unfinished
from kern.runner.checks import EVENTS_TO_SKIP, check_definition
from kern.runner.hook_parameters import AFTER, BEFORE, check_hooks
from kern.runner.input_schema import check_input_schema
from kern.runner.options import RunOptions
from kern.runner.past_runs import HISTORY_TOOL
from kern.runner.state_tool import STATE_TOOL
from kern.runner.tools import Compiled, checked
from kern.runtime.answer_schema import answer_schema
from kern.runtime.request import OnBusy
from kern.runtime.run_tree import RunnerSpec
from kern.state.codec import encode
from kern.state.merge import Policies, check_policies
from kern.state.model_state import initial_state
from kern.state.state_spec import Migration
from kern.tools import Tool
from kern.tools.arguments import load_pydantic

Instructions = str | Sequence[str] | Callable[..., Any]

log: Final = named("kern")

_ON_BUSY = get_args(OnBusy)
_mutex = threading.Lock()

PARTS: Final = (
    *("id", "name", "model", "tools", "tool_hooks", "pre_hooks", "post_hooks", "tool_choice"),
    *("tool_call_limit", "max_requests", "retries", "delay_between_retries", "exponential_backoff"),
    *("fallback_models", "add_history_to_context", "num_history_runs", "num_history_messages"),
    *("max_tool_calls_from_history", "add_session_state_to_context", "add_dependencies_to_context"),
    *("enable_session_summaries", "session_summary_model", "enable_agentic_state", "read_chat_history"),
    *("input_schema", "output_schema", "use_json_mode", "parser_model", "output_model"),
    *("session_state", "state_migrations", "merge", "role", "description"),
)
"""The parameters that a spec is compiled from. Those that each run reads, such as `instructions`, are not."""


@dataclass(kw_only=True, eq=False, repr=False, slots=True, weakref_slot=True)
class Definition(ChecksAssignments):
    """An agent or a team as the application defines it. Its runs do not change it.

    The docstrings of `Agent` and `Team` describe the parameters, where `help()` and editors look for them.
    """

    name: str | None = None
    id: str | None = None
    role: str | None = None
    description: str | None = None
    model: Model | str | None = None
    db: Db | None = None
    user_id: str | None = None
    session_id: str | None = None
    journal: Journal | None = None
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
    output_schema: Any = None  # Agent and Team say more
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
    usage_limits: Limits | None = None
    retries: int = 0
    delay_between_retries: float = 1.0
    exponential_backoff: bool = False
    fallback_models: Sequence[Model | str] | None = None

    store_events: bool = False
    events_to_skip: Collection[RunEvent | TeamRunEvent | str] = EVENTS_TO_SKIP
    stream: bool = False
    stream_events: bool = False
    debug_mode: bool = False
    debug_level: Literal[1, 2] = 1

    _own_id: str = field(init=False)
    _own_session: str | None = field(init=False)
    _session_logged: bool = field(default=False, init=False)
    _memory: InMemoryDb | None = field(default=None, init=False)
    _compiled: Compiled | None = field(default=None, init=False)
    _kept: object = field(default=None, init=False)
    """The compiled spec for the next runs; see `KeptSpec`."""

    if not TYPE_CHECKING:  # type checkers know the keywords from __init__

        def __new__(cls, *args: Any, **given: Any) -> Self:
            """Refuse unknown keywords with a suggestion."""
            try:
                check_arguments(cls, args, given, KEYWORDS, "model")
            except TypeError:
                with ShortTraceback():
                    raise
            return object.__new__(unfinished(cls))

        def __getattr__(self, name: str) -> Any:
            return explain_attribute(self, name, RUNNER_ATTRIBUTES)

    def __post_init__(self) -> None:
        self._own_session = None
        self._check()
        self._own_id = self.id or (slug(self.name) if self.name else "") or self._session_of_its_own()[:8]
        if len(self._own_id) > 200:
            check_given_id("the id that is made from name", self._own_id)
        finish(self)

    def _check(self) -> None:
        check_definition(self)
        _load(self)
        if self.on_busy not in _ON_BUSY:
            raise UsageError(f"on_busy must be one of {', '.join(_ON_BUSY)}, not {self.on_busy!r}")
        if self.debug_level not in (1, 2):
            raise UsageError(f"debug_level must be 1 or 2, not {self.debug_level!r}")
        if self.merge is not None:
            check_policies(self.merge)
        for migration in self.state_migrations:
            if not callable(migration):
                raise UsageError(f"state_migrations must be a list of functions, not of {migration!r}")
        if self.session_state is not None:
            encode(initial_state(self.session_state))
        if self.tools or self.tool_hooks:
            self._compiled = checked(self.tools or (), self.tool_hooks, self._tool_names())
        if self.pre_hooks or self.post_hooks:
            check_hooks("pre_hooks", self.pre_hooks, BEFORE)
            check_hooks("post_hooks", self.post_hooks, AFTER)
        if self.input_schema is not None:
            check_input_schema(self.input_schema)
        if self.output_schema is not None:
            answer_schema(self.output_schema)

    def __repr__(self) -> str:
        """Return the name and id; without either, the role and the beginning of the instructions."""
        fields_shown: dict[str, Any] = {"name": self.name, "id": self._own_id}
        if self.name is None and self.id is None:
            fields_shown = {"role": self.role, "instructions": self.instructions}
        shown = [f"{name}={reprlib.repr(value)}" for name, value in fields_shown.items() if value]
        return f"{type(self).__name__}({', '.join(shown)})"

    def __getstate__(self) -> Any:
        """For pickle: everything but compiled parts. Sessions in the in-memory database are not included."""
        return self._parts(memory=None)

    def __setstate__(self, state: tuple[dict[str, Any] | None, dict[str, Any]]) -> None:
        """For pickle: what was checked before is not checked again."""
        for part in state:
            for name, value in (part or {}).items():
                object.__setattr__(self, name, value)
        finish(self)

    def __copy__(self) -> Self:
        """Copy: the copy has the same default session, id and in-memory database."""
        return self._twin(lambda value: value, {})

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Copy deeply: like `__copy__`; the copy uses the same database."""
        return self._twin(lambda value: copy.deepcopy(value, memo), memo)

    def _twin(self, copied: Callable[[Any], Any], memo: dict[int, Any]) -> Self:
        memory = self._own_memory() if self.db is None else None
        memo[id(self)] = twin = object.__new__(type(self))
        for part in self._parts(memory=memory):
            for name, value in (part or {}).items():
                object.__setattr__(twin, name, copied(value))
        return twin

    def _parts(self, *, memory: Db | None) -> tuple[dict[str, Any] | None, dict[str, Any]]:
        """Return the attributes of a copy: the `__dict__` of an application's subclass, and the slots."""
        self._session_of_its_own()
        given: Any = object.__getstate__(self)
        return given[0], {
            **given[1],
            "_memory": memory,
            "_compiled": None,
            "_kept": None,
        }

    def _session_of_its_own(self) -> str:
        """Return a random id, made on first use: making it is a third of the cost of making an agent."""
        with _mutex:
            if self._own_session is None:
                self._own_session = str(uuid.uuid4())
            return self._own_session

    # Agents and teams override these, for `kern.runner.compile`.

    def _spec(self, options: RunOptions, inherited_model: Model | None = None) -> RunnerSpec:
        """Compile the spec of this agent or team for one run."""
        raise NotImplementedError

    _parts_of: ClassVar[attrgetter[tuple[Any, ...]]] = attrgetter(*PARTS)
    """Reads the parameters that the spec is compiled from."""

    def _own_memory(self) -> InMemoryDb:
        """Return the in-memory database of an agent or team without `db`."""
        with _mutex:
            if self._memory is None:
                self._memory = InMemoryDb()
            return self._memory

    def _known_members(self) -> Mapping[str, Definition]:
        """Return the members by id, as far as they are known before a run."""
        return {}

    _output_type: ClassVar[type[AnyRunOutput]] = RunOutput
    """The class of the outputs of its runs."""

    def _tool_names(self) -> Mapping[str, str]:
        """Return the names of the tools that Kern adds, each with the parameter that adds it."""
        names = {}
        if self.enable_agentic_state:
            names[STATE_TOOL] = "enable_agentic_state"
        if self.read_chat_history:
            names[HISTORY_TOOL] = "read_chat_history"
        return names

    def _state_keys(self) -> Sequence[str]:
        """Return the top-level keys of the session state that Kern itself writes."""
        return ()


def id_of(definition: Definition) -> str:
    """Return the id that runs are stored under: `id`, the name as a slug, or a generated id."""
    return definition.id or definition._own_id


def default_session(definition: Definition, user_id: str | None) -> str:
    """Return the session of runs without `session_id`: one for each user."""
    if definition.session_id is not None:
        return definition.session_id
    own = definition._session_of_its_own()
    return own if user_id is None else str(uuid.uuid5(uuid.UUID(own), user_id))


def log_session(definition: Definition, user_id: str | None) -> None:
    """Log the default session at its first run: after a restart it can be continued only by its id."""
    if not definition._session_logged:
        definition._session_logged = True
        log.info(
            "%r has a db and no session_id: it uses the new session %s; to continue that session after a "
            "restart, pass its session_id",
            definition,
            default_session(definition, user_id),
        )


def _load(definition: Definition) -> None:
    """Import what `import kern` leaves out and a run needs: here, where the import blocks no event loop.

    Raises:
        UsageError: The provider of a model is unknown.
    """
    load_pydantic()
    if definition.model is None or isinstance(definition.model, str):
        load(definition.model)
    others = (definition.session_summary_model, definition.parser_model, definition.output_model)
    if others != _NO_OTHERS or definition.fallback_models:
        for model in (*others, *(definition.fallback_models or ())):
            if isinstance(model, str):
                load(model)


_NO_OTHERS = (None, None, None)


@lru_cache(maxsize=1024)
def slug(name: str) -> str:
    """Turn a name into an id: lower case, letters, digits and single hyphens."""
    return re.sub(r"[^\w]+", "-", name.lower()).strip("-_")
