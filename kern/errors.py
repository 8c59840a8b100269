"""Everything that Kern raises, as one tree.

    KernError
    ├── UsageError                   the program is wrong: fix the call
    │   ├── MissingExtraError        an optional package is not installed
    │   └── MissingKeyError          no API key where the provider wants one
    ├── ModelError                   a model request failed
    │   ├── ModelConnectionError     the provider could not be reached, or the connection broke
    │   │   └── ModelTimeoutError
    │   ├── ModelStreamError         the answer ended too early, or was no valid protocol
    │   │   ├── ModelIncompleteError      cut at a limit, or by a content filter: the next one would be too
    │   │   └── ModelServerStreamError    the provider failed while it answered; a ModelServerError, too
    │   └── ModelStatusError         the provider answered with an error status
    │       ├── ModelBadRequestError      400, 413, 422
    │       ├── ModelAuthError            401, 403
    │       ├── ModelNotFoundError        404
    │       ├── ModelRateLimitError       429
    │       └── ModelServerError          408, 409, 5xx
    ├── ModelBehaviorError           the model answered, but not with what was asked for
    ├── ToolError                    a tool call failed
    │   ├── ToolArgumentsError
    │   └── ToolTimeoutError
    ├── StateError                   the session state
    │   ├── InvalidStateError        a value that is not JSON, with its path
    │   └── StateLockTimeout         waited too long for the state
    ├── SessionError                 the session
    │   ├── SessionOwnershipError    it belongs to another user
    │   ├── SessionDeletedError      it was deleted while a run had it in use
    │   ├── SessionBusyError         another run has it, and this one does not wait
    │   ├── RunConflictError         a run of that id was faster: it goes on, or has ended
    │   └── RunLostError             another process has taken the run over
    ├── StoreError                   the database
    │   └── StoreBusyError           others had it for too long
    ├── CheckError                   a check refused the run
    │   ├── InputCheckError
    │   └── OutputCheckError
    ├── HookError                    a hook of the application raised
    ├── ShutdownError                `kern.shutdown()` is at work, and no new run begins
    ├── ReplayMismatch               a replay came to something else than what is recorded
    ├── RunDeadlineExceeded          the run's own deadline passed
    └── UsageLimitExceeded           a limit on requests, tokens or tool calls

    AgentSignal                      not failures: a tool's answers that steer the model
    ├── RetryAgentRun
    └── StopAgentRun

Every error that ends a run carries that run's output as `run_output` (status ERROR, already committed); a
`StoreError` or `SessionDeletedError` of its commit is the exception: nothing is committed then.
"""

from __future__ import annotations

from typing import Any

from kern._failed_run import FailedRun
from kern._portable import Portable


class KernError(Portable):
    """The root of all errors of Kern. Each can be copied and pickled, and so cross from a worker process."""

    run_output: FailedRun | None = None
    """The `RunOutput` or `TeamRunOutput` of the run that this error ended; None outside of a run.

    It is pickled with the error; a content that cannot be pickled becomes plain JSON.
    """


class UsageError(KernError):
    """The program calls Kern in a way that cannot work; the message says what to write instead."""


class MissingExtraError(UsageError):
    """An optional package is needed and not installed.

    Args:
        package: The package as it is named on PyPI.
        extra: The extra of Kern's that brings it.
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"the package {package!r} is not installed; run pip install 'kern-agents[{extra}]'")
        self.package = package
        self.extra = extra


class MissingKeyError(UsageError):
    """No API key was given, and the environment has none."""


class ModelError(KernError):
    """A request to a model failed.

    Args:
        message: What happened, without any secret.
        provider: The provider's name, such as "openai".
        model: The model's id.
    """

    def __init__(self, message: str, *, provider: str = "", model: str = "") -> None:
        where = "/".join(part for part in (provider, model) if part)
        super().__init__(f"{where}: {message}" if where else message)
        self.provider = provider
        self.model = model


class ModelConnectionError(ModelError):
    """The provider could not be reached, or the connection broke."""


class ModelTimeoutError(ModelConnectionError):
    """The provider did not answer in time."""


class ModelStreamError(ModelError):
    """The answer ended too early, reported a failure of its own, or was not the protocol it should be."""


class ModelIncompleteError(ModelStreamError):
    """The provider cut the answer at a limit, or its content filter did. The same request would end the same
    way and cost the same again, so it is not repeated; `fallback_models` are asked.

    Args:
        message: What happened, and what to do about it.
        reason: The provider's word: "max_output_tokens" or "content_filter".
        usage: The `Usage` that the answer cost all the same.
        content: The text that had come so far.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: str,
        usage: Any = None,
        content: str = "",
        provider: str = "",
        model: str = "",
    ) -> None:
        super().__init__(message, provider=provider, model=model)
        self.reason = reason
        self.usage = usage
        self.content = content


class ModelStatusError(ModelError):
    """The provider answered with an error status.

    Args:
        message: The provider's own text.
        status: The HTTP status.
        code: The provider's error code, such as "model_not_found".
        request_id: The provider's id for the request, for its support.
        retry_after: Seconds that the provider asked to wait.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        provider: str = "",
        model: str = "",
        code: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"HTTP {status}: {message}", provider=provider, model=model)
        self.status = status
        self.code = code
        self.request_id = request_id
        self.retry_after = retry_after


class ModelBadRequestError(ModelStatusError):
    """The provider refused the request as it stands (400, 413, 422 and other 4xx)."""


class ModelAuthError(ModelStatusError):
    """The provider refused the key (401) or the permission (403)."""


class ModelNotFoundError(ModelStatusError):
    """The provider knows no such model or address (404)."""


class ModelRateLimitError(ModelStatusError):
    """The provider's rate limit or quota is used up (429)."""


class ModelServerError(ModelStatusError):
    """The provider failed (408, 409, 5xx)."""


class ModelServerStreamError(ModelStreamError, ModelServerError):
    """The provider failed while it answered: the status was 200, and the failure stands inside of the answer.

    Its `status` is the one that the failure has where it comes as an HTTP status.
    """


class ModelBehaviorError(KernError):
    """The model answered, but not with what was asked for, and went on doing so."""


class ToolError(KernError):
    """A tool call failed.

    Args:
        message: What happened.
        tool: The tool's name.
    """

    def __init__(self, message: str, *, tool: str = "") -> None:
        super().__init__(message)
        self.tool = tool


class ToolArgumentsError(ToolError):
    """The model called a tool with arguments that do not fit."""


class ToolTimeoutError(ToolError):
    """A tool call took longer than its `timeout`."""


class StateError(KernError):
    """Something about the session state."""


class InvalidStateError(StateError):
    """The session state holds a value that is not JSON, or that does not fit its declared type.

    Args:
        message: What is wrong with it.
        path: Where it stands, as a JSON Pointer (RFC 6901): "/shopping_list/2".
    """

    def __init__(self, message: str, *, path: str = "") -> None:
        super().__init__(f"session_state{path}: {message}")
        self.path = path


class StateLockTimeout(StateError):
    """A call waited longer than allowed for the session state.

    Args:
        waiter: Who waited.
        holder: Who has the state.
        seconds: How long it waited.
    """

    def __init__(self, *, waiter: str, holder: str, seconds: float) -> None:
        super().__init__(
            f"{waiter} waited {seconds:g} s for the session state, which {holder} has; "
            "do slow I/O before the first touch of session_state, or read with run_context.snapshot()"
        )
        self.waiter = waiter
        self.holder = holder
        self.seconds = seconds


class SessionError(KernError):
    """Something about a session."""


class SessionOwnershipError(SessionError):
    """The session belongs to another user than the one who asks.

    Args:
        session_id: The session that was asked for.
    """

    def __init__(self, session_id: str) -> None:
        super().__init__(f"session {session_id!r} belongs to another user")
        self.session_id = session_id


class SessionDeletedError(SessionError):
    """The session was deleted while it was in use; nothing is saved. A later one of that id is another.

    Args:
        session_id: The session that is gone.
    """

    def __init__(self, session_id: str) -> None:
        super().__init__(
            f"session {session_id!r} was deleted while it was in use, so this run or change was not saved; "
            "a new run with that session_id starts a new session"
        )
        self.session_id = session_id


_BUSY = "is used by another run, and on_busy is 'reject'"


class SessionBusyError(SessionError):
    """Another run has the session, and this one does not wait: `on_busy="reject"`, or it cannot wait.

    Args:
        session_id: The session that is busy.
        why: What has it; None: a run, and `on_busy="reject"`.
    """

    def __init__(self, session_id: str, why: str | None = None) -> None:
        super().__init__(f"session {session_id!r} {why or _BUSY}")
        self.session_id = session_id
        self.why = why


class RunConflictError(SessionError):
    """A run that is asked for, or that stands in the way, goes on or has ended: somebody was faster.

    No fault of the program: two clicks on one button, or a request that was sent twice, lead here.
    """


class RunLostError(SessionError):
    """Another process has taken the run over, or has ended it: nothing that this one did since is saved.

    It happens to a process that stood still for longer than its claim to the run lasts.

    Args:
        run_id: The run.
    """

    def __init__(self, run_id: str) -> None:
        super().__init__(
            f"run {run_id!r} was taken over by another process while this one stood still; "
            "get_run_output() has its end once it is committed"
        )
        self.run_id = run_id


class StoreError(KernError):
    """The database could not do what was asked; what was to be saved is not saved."""


class StoreBusyError(StoreError):
    """Other writers have had the database for longer than its `busy_timeout`."""


class CheckError(KernError):
    """A check, such as a guardrail, refused the run."""


class InputCheckError(CheckError):
    """A check refused the input."""


class OutputCheckError(CheckError):
    """A check refused the output."""


class HookError(KernError):
    """A hook or an instruction function raised; the original error is the cause.

    Args:
        message: What happened.
        hook: The function's name.
    """

    def __init__(self, message: str, *, hook: str = "") -> None:
        super().__init__(message)
        self.hook = hook


class ShutdownError(KernError):
    """`kern.shutdown()` is at work on this event loop, and no new run begins until it has returned."""


class ReplayMismatch(KernError):
    """A replayed run came to something else than what is recorded; the message shows the difference."""


class RunDeadlineExceeded(KernError):
    """The run took longer than its deadline."""


class UsageLimitExceeded(KernError):
    """The next request or tool call would pass `max_requests`, `tool_call_limit` or a limit of `UsageLimits`.

    Args:
        what: The limit that was reached, such as "requests" or "US dollars".
        limit: Its value.
        budget: The name of the `UsageBudget` whose limit it is.
    """

    def __init__(self, what: str, limit: float, *, budget: str = "") -> None:
        whose = f"the budget {budget!r}" if budget else "the limit"
        super().__init__(f"{whose} of {limit} {what} is reached")
        self.what = what
        self.limit = limit
        self.budget = budget


class AgentSignal(Portable):
    """What a tool raises to steer the model; the transaction of its call is committed.

    Args:
        message: What the model reads as the call's result.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(message)
        self.message = message


class RetryAgentRun(AgentSignal):
    """The model is told the message and asked to try again."""


class StopAgentRun(AgentSignal):
    """The run ends after this turn, with the message as the call's result."""
