"""Running an agent or a team: start a run, continue a paused one, cancel one."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from typing import Any, Generic, Literal, TypeAlias, TypeVar, Unpack, cast, overload

from kern._ids import check_given_id
from kern._keywords import check_keywords
from kern._traceback import ShortTraceback
from kern.errors import UsageError
from kern.run.cancel import CancelResult
from kern.run.events import Event
from kern.run.output import AnyRunOutput, RunOutput, TeamRunOutput
from kern.runner.access import use
from kern.runner.compile import database_of, listens, request
from kern.runner.continuation import Continuation, continuation
from kern.runner.definition import Definition
from kern.runner.input_schema import Input
from kern.runner.options import (
    NO_OPTIONS,
    ContinueKeywords,
    Keywords,
    PlainKeywords,
    RunKeywords,
    RunOptions,
    check_id,
    needs_stream,
    run_input,
)
from kern.runtime.active_runs import active_runs
from kern.runtime.audience import Listen
from kern.runtime.cancel_elsewhere import cancel_elsewhere
from kern.runtime.lifecycle import execute
from kern.runtime.portal import portal
from kern.runtime.stream import EventBuffer, RunStream, iterate

OutputT = TypeVar("OutputT", bound=AnyRunOutput)
T = TypeVar("T")

_RunsAgent: TypeAlias = "Running[RunOutput[Any]]"
_RunsTeam: TypeAlias = "Running[TeamRunOutput[Any]]"


class Running(Definition, Generic[OutputT]):
    """Runs of an agent or a team."""

    __slots__ = ()

    @overload
    def arun(
        self: _RunsAgent, input: Input, *, output_schema: type[T], **options: Unpack[PlainKeywords]
    ) -> Coroutine[Any, Any, RunOutput[T]]: ...
    @overload
    def arun(
        self: _RunsTeam, input: Input, *, output_schema: type[T], **options: Unpack[PlainKeywords]
    ) -> Coroutine[Any, Any, TeamRunOutput[T]]: ...
    @overload
    def arun(
        self, input: Input, *, stream: Literal[False] = False, **options: Unpack[RunKeywords]
    ) -> Coroutine[Any, Any, OutputT]: ...
    @overload
    def arun(
        self,
        input: Input,
        *,
        stream: Literal[True],
        yield_run_output: Literal[False] = False,
        **options: Unpack[RunKeywords],
    ) -> RunStream[OutputT, Event]: ...
    @overload
    def arun(
        self,
        input: Input,
        *,
        stream: Literal[True],
        yield_run_output: bool,
        **options: Unpack[RunKeywords],
    ) -> RunStream[OutputT, Event | OutputT]: ...
    @overload
    def arun(
        self, input: Input, *, stream: bool, yield_run_output: bool = False, **options: Unpack[RunKeywords]
    ) -> Coroutine[Any, Any, OutputT] | RunStream[OutputT, Event | OutputT]: ...
    def arun(
        self,
        input: Input,
        *,
        stream: bool = False,
        yield_run_output: bool = False,
        **options: Unpack[RunKeywords],
    ) -> Any:
        """Run on `input`: `await agent.arun(...)`, or `async for event in agent.arun(..., stream=True)`.

        Args:
            input: What to ask the model: a text, or a list of messages (`Message` objects, or dicts with a
                role and a content). Other dicts and lists, and pydantic models, are sent as JSON.
            stream: Return an async iterator of events instead of a coroutine of the output.
            yield_run_output: With `stream=True`: yield the output as the last item.
            options: The run's keywords, such as `session_id`; see `kern.runner.options.RunOptions`.

        Raises:
            KernError: The run failed; the error's `run_output` is committed and has status ERROR.
            UsageError: An argument is invalid.
        """
        chosen = RunOptions.of(options) if options else NO_OPTIONS
        asked = request(self, run_input(input, self.input_schema, chosen), chosen)
        if not stream:
            if chosen.stream_events or yield_run_output:
                needs_stream(chosen.stream_events, yield_run_output)
            run: Any = execute(asked)
            run.__qualname__ = f"{type(self).__name__}.arun"  # for Python's "... was never awaited"
            return run
        listen = listens(self, chosen.stream_events)

        def start(buffer: EventBuffer) -> Coroutine[Any, Any, Any]:
            return execute(asked, buffer, listen)

        return RunStream(start, EventBuffer(), yield_output=yield_run_output)

    @overload
    def run(
        self: _RunsAgent, input: Input, *, output_schema: type[T], **options: Unpack[PlainKeywords]
    ) -> RunOutput[T]: ...
    @overload
    def run(
        self: _RunsTeam, input: Input, *, output_schema: type[T], **options: Unpack[PlainKeywords]
    ) -> TeamRunOutput[T]: ...
    @overload
    def run(
        self, input: Input, *, stream: Literal[False] = False, **options: Unpack[RunKeywords]
    ) -> OutputT: ...
    @overload
    def run(
        self,
        input: Input,
        *,
        stream: Literal[True],
        yield_run_output: Literal[False] = False,
        **options: Unpack[RunKeywords],
    ) -> Iterator[Event]: ...
    @overload
    def run(
        self,
        input: Input,
        *,
        stream: Literal[True],
        yield_run_output: bool,
        **options: Unpack[RunKeywords],
    ) -> Iterator[Event | OutputT]: ...
    @overload
    def run(
        self, input: Input, *, stream: bool, yield_run_output: bool = False, **options: Unpack[RunKeywords]
    ) -> OutputT | Iterator[Event | OutputT]: ...
    def run(
        self,
        input: Input,
        *,
        stream: bool = False,
        yield_run_output: bool = False,
        **options: Unpack[RunKeywords],
    ) -> Any:
        """`arun` for sync code: returns the output, or with `stream=True` an iterator of events.

        Works in a script, a worker thread, a sync tool, and a notebook, whose event loop is running. In async
        code await `arun` instead: this method stops the event loop until the run has ended. Ctrl-C cancels
        the run; `KeyboardInterrupt` is raised when the end of the run is committed.
        """
        if stream:
            with ShortTraceback(whole=self._debugs(options)):
                started = self.arun(input, stream=True, yield_run_output=yield_run_output, **options)
                return iterate(started, whole=self._debugs(options))

        async def once() -> Any:
            needs_stream(None, yield_run_output)
            return await self.arun(input, **options)

        with ShortTraceback(whole=self._debugs(options)):
            return portal.call(once)

    @overload
    def acontinue_run(
        self,
        run_response: AnyRunOutput | None = None,
        *,
        stream: Literal[False] = False,
        **options: Unpack[ContinueKeywords],
    ) -> Coroutine[Any, Any, OutputT]: ...
    @overload
    def acontinue_run(
        self,
        run_response: AnyRunOutput | None = None,
        *,
        stream: Literal[True],
        yield_run_output: Literal[False] = False,
        **options: Unpack[ContinueKeywords],
    ) -> RunStream[OutputT, Event]: ...
    @overload
    def acontinue_run(
        self,
        run_response: AnyRunOutput | None = None,
        *,
        stream: Literal[True],
        yield_run_output: bool,
        **options: Unpack[ContinueKeywords],
    ) -> RunStream[OutputT, Event | OutputT]: ...
    @overload
    def acontinue_run(
        self,
        run_response: AnyRunOutput | None = None,
        *,
        stream: bool,
        yield_run_output: bool = False,
        **options: Unpack[ContinueKeywords],
    ) -> Coroutine[Any, Any, OutputT] | RunStream[OutputT, Event | OutputT]: ...
    def acontinue_run(
        self,
        run_response: AnyRunOutput | None = None,
        *,
        stream: bool = False,
        yield_run_output: bool = False,
        **options: Unpack[ContinueKeywords],
    ) -> Any:
        """Continue a paused run. Calls that were carried out before the pause are not repeated.

        Pass the output of the paused run or, after a restart, its `run_id`.

        Args:
            run_response: The output of the paused run, with its `requirements` resolved.
            run_id: The id of the run, in place of its output.
            requirements: The resolved requirements. None: those of `run_response`.
            stream, stream_events, yield_run_output: As for `arun`.
            user_id: The owner of the session; None: the owner of `run_response`, or the constructor's value.
            dependencies, output_schema, usage_limits: Pass again what you passed to the run: they are not
                stored. What the run used before the pause counts towards `UsageLimits`; a
                `UsageBudget` that the run had before has counted it, and another one has not.
            timeout: How many seconds this part of the run may take.

        Raises:
            UsageError: There is no such run, or a requirement belongs to another run.
            RunConflictError: The run is not paused, or is being continued already.
        """
        start, call = self._continued(run_response, options)
        if not stream:
            needs_stream(call.stream_events, yield_run_output)
            run: Any = start(None, Listen.nothing)
            run.__qualname__ = f"{type(self).__name__}.acontinue_run"
            return run
        listen = listens(self, call.stream_events)
        return RunStream(lambda buffer: start(buffer, listen), EventBuffer(), yield_output=yield_run_output)

    def _continued(
        self, run_response: AnyRunOutput | None, options: ContinueKeywords
    ) -> tuple[Callable[[EventBuffer | None, Listen], Coroutine[Any, Any, OutputT]], Continuation]:
        """Check the arguments of `continue_run`.

        Returns:
            A function that continues the run, and the checked keywords.
        """
        check_keywords("continue_run", options, Continuation.__dataclass_fields__)
        call = Continuation(**options)
        if not isinstance(run_response, RunOutput | TeamRunOutput | None):
            raise UsageError(
                f"the first argument of continue_run must be the output of the paused run, not "
                f"{run_response!r}; to continue a run by its id, pass run_id=..."
            )
        run_id = call.run_id
        if run_id is None and run_response is not None:
            run_id = run_response.run_id
        if run_id is None:
            raise UsageError("continue_run needs the output of the paused run, or run_id=...")
        answers = call.requirements
        if answers is None:
            answers = run_response.requirements if run_response is not None else ()

        async def start(buffer: EventBuffer | None, listen: Listen) -> Any:
            asked = await continuation(self, run_id, run_response, answers, call)
            return await execute(asked, buffer, listen)

        return start, call

    def _observed(
        self, input: Input, observer: Callable[[Event], None], options: RunKeywords
    ) -> Coroutine[Any, Any, OutputT]:
        """Run without a stream, and call `observer` with each event, in the thread that emits it."""
        chosen = RunOptions.of(options) if options else NO_OPTIONS
        asked = request(self, run_input(input, self.input_schema, chosen), chosen)
        return cast("Coroutine[Any, Any, OutputT]", execute(asked, _observed_by(observer), Listen.nothing))

    def _continued_observed(
        self, run_response: AnyRunOutput, observer: Callable[[Event], None]
    ) -> Coroutine[Any, Any, OutputT]:
        """Continue a paused run without a stream, and call `observer` with each event."""
        start, _ = self._continued(run_response, {})
        return start(_observed_by(observer), Listen.nothing)

    @overload
    def continue_run(
        self,
        run_response: AnyRunOutput | None = None,
        *,
        stream: Literal[False] = False,
        **options: Unpack[ContinueKeywords],
    ) -> OutputT: ...
    @overload
    def continue_run(
        self,
        run_response: AnyRunOutput | None = None,
        *,
        stream: Literal[True],
        yield_run_output: Literal[False] = False,
        **options: Unpack[ContinueKeywords],
    ) -> Iterator[Event]: ...
    @overload
    def continue_run(
        self,
        run_response: AnyRunOutput | None = None,
        *,
        stream: Literal[True],
        yield_run_output: bool,
        **options: Unpack[ContinueKeywords],
    ) -> Iterator[Event | OutputT]: ...
    @overload
    def continue_run(
        self,
        run_response: AnyRunOutput | None = None,
        *,
        stream: bool,
        yield_run_output: bool = False,
        **options: Unpack[ContinueKeywords],
    ) -> OutputT | Iterator[Event | OutputT]: ...
    def continue_run(
        self,
        run_response: AnyRunOutput | None = None,
        *,
        stream: bool = False,
        yield_run_output: bool = False,
        **options: Unpack[ContinueKeywords],
    ) -> Any:
        """See `acontinue_run`."""
        with ShortTraceback(whole=self._debugs(options)):
            if stream:
                started = self.acontinue_run(
                    run_response, stream=True, yield_run_output=yield_run_output, **options
                )
                return iterate(started, whole=self._debugs(options))
            needs_stream(None, yield_run_output)
            return portal.call(lambda: self.acontinue_run(run_response, **options))

    def _debugs(self, options: Keywords) -> bool:
        """Whether the run is debugged: its errors then keep the whole traceback."""
        given = options.get("debug_mode")
        return bool(self.debug_mode if given is None else given)

    async def acancel_run(self, run_id: str, *, user_id: str | None = None) -> CancelResult:
        """Cancel a run in this database, also a team member's run. Does not wait until the run has ended.

        The call that awaits the run gets its output, with status CANCELLED. A run that still waits for its
        session never begins. A paused run is stored as cancelled, and cannot be continued. If another process
        drives the run, the request is written to the database; that process finds it within about a second.

        Args:
            run_id: The id of the run.
            user_id: The user who asks, who must own the run's session. None is trusted code: no check.

        Returns:
            The result of the request. It is true only if the run stops and will be stored as CANCELLED.

        Raises:
            SessionOwnershipError: The run belongs to another user.
            UsageError: It is a member's run that is paused: cancel its team's run.
        """
        check_given_id("run_id", run_id)
        check_id("user_id", user_id)
        db = database_of(self)
        found = active_runs.cancel(db, run_id, user_id)
        if found is not CancelResult.unknown:
            return found
        return await cancel_elsewhere(db, run_id, user_id, partial(use, self))

    def cancel_run(self, run_id: str, *, user_id: str | None = None) -> CancelResult:
        """See `acancel_run`. May be called from any thread."""
        check_given_id("run_id", run_id)
        check_id("user_id", user_id)
        found = active_runs.cancel(database_of(self), run_id, user_id)
        if found is not CancelResult.unknown:
            return found
        with ShortTraceback(whole=self.debug_mode):
            return portal.call(lambda: self.acancel_run(run_id, user_id=user_id))


def _observed_by(observer: Callable[[Event], None]) -> EventBuffer:
    buffer = EventBuffer()
    buffer.observers = (observer,)
    return buffer
