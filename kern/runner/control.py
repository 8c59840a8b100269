"""Control over runs that were started: cancel one, or go on with one that waits for a person."""

from __future__ import annotations

import uuid
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, TypeVar, Unpack, overload

import pydantic
from pydantic_core import from_json

from kern.errors import UsageError
from kern.models.base import Model
from kern.run.cancel import CancelResult
from kern.run.events import Event
from kern.run.output import RunOutput, TeamRunOutput, output_from_dict
from kern.run.requirement import RunRequirement
from kern.runner.checks import check_id, check_keywords, check_limits, check_seconds, needs_stream
from kern.runner.options import ContinueKeywords, RunOptions
from kern.runner.sessions import SessionAccess
from kern.runtime.cancelling import cancel_elsewhere
from kern.runtime.control import active_runs
from kern.runtime.debug import show_debug_messages
from kern.runtime.portal import portal
from kern.runtime.scheduler import execute
from kern.runtime.spec import Resume, RunInput, RunnerSpec, RunRequest
from kern.runtime.stored import reading
from kern.runtime.stream import EventBuffer, Listen, RunStream, iterate
from kern.usage import UsageLimits

OutputT = TypeVar("OutputT", RunOutput, TeamRunOutput)


class RunControl(SessionAccess, Generic[OutputT]):
    """Cancelling and continuing runs, for agents and teams alike."""

    __slots__ = ()

    def build_spec(self, options: RunOptions, inherited_model: Model | None = None) -> RunnerSpec:
        """What the engine is told of this agent or team for one run."""
        raise NotImplementedError

    def request(self, input: RunInput, options: RunOptions) -> RunRequest:
        """What the engine is asked for: a run on `input`, as the constructor and the call say."""
        user_id = options.user_id if options.user_id is not None else self.user_id
        debug = self.debug_mode if options.debug_mode is None else options.debug_mode
        if debug:
            show_debug_messages()
        return RunRequest(
            spec=self.build_spec(options),
            input=input,
            db=self.database(),
            run_id=options.run_id or str(uuid.uuid4()),
            session_id=options.session_id or self.default_session_id(user_id),
            user_id=user_id,
            state=self.state_spec(),
            session_state=options.session_state,
            overwrite_state=self.overwrite_db_session_state,
            on_busy=self.on_busy,
            on_duplicate=None if options.run_id is None else options.on_duplicate,
            dependencies={**(self.dependencies or {}), **(options.dependencies or {})},
            metadata={**(self.metadata or {}), **(options.metadata or {})},
            timeout=self.timeout if options.timeout is None else options.timeout,
            usage_limits=self.usage_limits if options.usage_limits is None else options.usage_limits,
            skip_events=self.skipped_events(),
            debug=self.debug_level if debug else 0,
        )

    def listens(self, stream_events: bool | None) -> Listen:
        """What a stream yields: what its run says, or the constructor."""
        everything = self.stream_events if stream_events is None else stream_events
        return Listen.everything if everything else Listen.content

    async def acancel_run(self, run_id: str, *, user_id: str | None = None) -> CancelResult:
        """Cancel a run of this database, a member's too: whoever awaits it gets its output, with status
        CANCELLED. Does not wait for that.

        A run that still waits for its session never begins. One that waits for a person is cancelled where it
        is stored, and cannot be continued any more. If another process drives the run, the request is written
        to the database, where that process finds it within about a second.

        Args:
            run_id: The run.
            user_id: Who asks, and has to be the owner of the run's session; None is trusted code, unchecked.

        Returns:
            What has come of it; true only if the run is stopped and will be stored as CANCELLED.

        Raises:
            SessionOwnershipError: The run is another user's.
        """
        check_id("run_id", run_id)
        check_id("user_id", user_id)
        db = self.database()
        found = active_runs.cancel(db, run_id, user_id)
        if found is not CancelResult.unknown:
            return found
        return await cancel_elsewhere(db, run_id, user_id, self._use)

    def cancel_run(self, run_id: str, *, user_id: str | None = None) -> CancelResult:
        """See `acancel_run`; from any thread."""
        check_id("run_id", run_id)
        check_id("user_id", user_id)
        found = active_runs.cancel(self.database(), run_id, user_id)
        if found is not CancelResult.unknown:
            return found
        return portal.call(lambda: self.acancel_run(run_id, user_id=user_id))

    @overload
    def acontinue_run(
        self,
        run_response: OutputT | None = None,
        *,
        stream: Literal[False] = False,
        **options: Unpack[ContinueKeywords],
    ) -> Coroutine[Any, Any, OutputT]: ...
    @overload
    def acontinue_run(
        self,
        run_response: OutputT | None = None,
        *,
        stream: Literal[True],
        yield_run_output: Literal[False] = False,
        **options: Unpack[ContinueKeywords],
    ) -> RunStream[OutputT, Event]: ...
    @overload
    def acontinue_run(
        self,
        run_response: OutputT | None = None,
        *,
        stream: Literal[True],
        yield_run_output: bool,
        **options: Unpack[ContinueKeywords],
    ) -> RunStream[OutputT, Event | OutputT]: ...
    @overload
    def acontinue_run(
        self,
        run_response: OutputT | None = None,
        *,
        stream: bool,
        yield_run_output: bool = False,
        **options: Unpack[ContinueKeywords],
    ) -> Coroutine[Any, Any, OutputT] | RunStream[OutputT, Event | OutputT]: ...
    def acontinue_run(
        self,
        run_response: OutputT | None = None,
        *,
        stream: bool = False,
        yield_run_output: bool = False,
        **options: Unpack[ContinueKeywords],
    ) -> Any:
        """Go on with a run that was paused; what had already run is not run again.

        Works from the output of the paused run, or, after a restart, from the database by `run_id`.

        Args:
            run_response: The paused run's output, its `requirements` resolved.
            run_id: Instead of it, the run's id.
            requirements: The resolved requirements; without them, those of `run_response`.
            stream, stream_events, yield_run_output: As for `arun`.
            user_id: Whose session it is; None: whose `run_response` is, else the constructor's.
            dependencies, output_schema, usage_limits: What the run was given as its own; they are not stored.
                What it used before the pause counts towards the limits.
            timeout: Seconds that this part of the run may take.

        Raises:
            UsageError: There is no such run, or an answer is not for it.
            RunConflictError: The run does not wait, or goes on already.
        """
        check_keywords("continue_run", options, _Continuation)
        call = _Continuation(**options)
        if not isinstance(run_response, RunOutput | TeamRunOutput | None):
            raise UsageError(f"continue_run takes a run's output first, not {run_response!r}; or run_id=...")
        run_id = call.run_id or (run_response.run_id if run_response is not None else None)
        if run_id is None:
            raise UsageError("continue_run takes the paused run's output, or its run_id")
        answers = call.requirements
        if answers is None:
            answers = run_response.requirements if run_response is not None else ()

        async def start(buffer: EventBuffer | None, listen: Listen) -> Any:
            request = await self._continuation(run_id, run_response, answers, call)
            return await execute(request, buffer, listen)

        if not stream:
            needs_stream(call.stream_events, yield_run_output)
            return start(None, Listen.nothing)
        listen = self.listens(call.stream_events)
        return RunStream(lambda buffer: start(buffer, listen), EventBuffer(), yield_output=yield_run_output)

    @overload
    def continue_run(
        self,
        run_response: OutputT | None = None,
        *,
        stream: Literal[False] = False,
        **options: Unpack[ContinueKeywords],
    ) -> OutputT: ...
    @overload
    def continue_run(
        self,
        run_response: OutputT | None = None,
        *,
        stream: Literal[True],
        yield_run_output: Literal[False] = False,
        **options: Unpack[ContinueKeywords],
    ) -> Iterator[Event]: ...
    @overload
    def continue_run(
        self,
        run_response: OutputT | None = None,
        *,
        stream: Literal[True],
        yield_run_output: bool,
        **options: Unpack[ContinueKeywords],
    ) -> Iterator[Event | OutputT]: ...
    @overload
    def continue_run(
        self,
        run_response: OutputT | None = None,
        *,
        stream: bool,
        yield_run_output: bool = False,
        **options: Unpack[ContinueKeywords],
    ) -> OutputT | Iterator[Event | OutputT]: ...
    def continue_run(
        self,
        run_response: OutputT | None = None,
        *,
        stream: bool = False,
        yield_run_output: bool = False,
        **options: Unpack[ContinueKeywords],
    ) -> Any:
        """See `acontinue_run`."""
        if stream:
            return iterate(
                self.acontinue_run(run_response, stream=True, yield_run_output=yield_run_output, **options)
            )
        needs_stream(None, yield_run_output)
        return portal.call(lambda: self.acontinue_run(run_response, **options))

    async def _continuation(
        self,
        run_id: str,
        run_response: OutputT | None,
        answers: Sequence[RunRequirement],
        call: _Continuation,
    ) -> RunRequest:
        db = self.database()
        row = await db.load_run(run_id)
        if row is None:
            raise UsageError(
                f"no run {run_id!r} is stored here; a run is continued with the db it was made with"
            )
        user_id = call.user_id
        if user_id is None and run_response is not None:
            user_id = run_response.user_id
        options = RunOptions(
            run_id=run_id,
            session_id=row.session_id,
            user_id=user_id,
            dependencies=call.dependencies,
            output_schema=call.output_schema,
            timeout=call.timeout,
            usage_limits=call.usage_limits,
            debug_mode=call.debug_mode,
        )
        request = self.request(RunInput(value=None, messages=[]), options)
        with reading(row):
            metadata = output_from_dict(from_json(row.data)).metadata
        return replace(request, metadata=metadata, resume=Resume(answers), on_duplicate=None)


@dataclass(slots=True, frozen=True, kw_only=True)
class _Continuation:
    """The keywords of one `continue_run`, checked."""

    run_id: str | None = None
    requirements: Sequence[RunRequirement] | None = None
    stream_events: bool | None = None
    user_id: str | None = None
    dependencies: Mapping[str, Any] | None = None
    output_schema: type[pydantic.BaseModel] | Mapping[str, Any] | None = None
    timeout: float | None = None
    usage_limits: UsageLimits | None = None
    debug_mode: bool | None = None

    def __post_init__(self) -> None:
        check_id("run_id", self.run_id)
        check_id("user_id", self.user_id)
        check_seconds("timeout", self.timeout)
        check_limits(self.usage_limits)
