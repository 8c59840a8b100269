"""Every exception that Kern raises, as one tree.

    KernError
    ├── UsageError                   the program calls Kern wrongly: fix the call
    │   ├── MissingExtraError        an optional package is not installed
    │   ├── MissingKeyError          the model has no API key
    │   └── UserInputError           (in kern.run.requirement) a person's input does not fit the tool
    ├── ModelError                   a model request failed
    │   ├── ModelConnectionError     the provider could not be reached, or the connection broke
    │   │   └── ModelTimeoutError    the provider did not answer in time
    │   ├── ModelStreamError         the answer is incomplete or malformed
    │   │   ├── ModelIncompleteError      cut at a token limit or by a content filter
    │   │   └── ModelServerStreamError    the provider failed while answering; also a ModelServerError
    │   └── ModelStatusError         the provider answered with an error status
    │       ├── ModelBadRequestError      400, 413, 422 and other 4xx
    │       ├── ModelAuthError            401, 403
    │       ├── ModelNotFoundError        404
    │       ├── ModelRateLimitError       429
    │       └── ModelServerError          408, 409, 5xx
    ├── ModelBehaviorError           the model's answer does not fit what was asked for
    ├── ToolError                    a tool call failed
    │   ├── ToolArgumentsError       its arguments do not fit the parameters
    │   └── ToolTimeoutError         it took longer than the tool's timeout
    ├── StateError                   the session state
    │   ├── InvalidStateError        a value is not JSON, or does not fit the declared type
    │   └── StateLockTimeout         a call waited too long for the state
    ├── SessionError                 the session
    │   ├── SessionOwnershipError    it belongs to another user
    │   ├── SessionDeletedError      it was deleted while a run used it
    │   ├── SessionBusyError         another run uses it, and this run does not wait
    │   ├── RunConflictError         a run with this id is in progress or has ended
    │   │   └── RunMismatch          and it is another run than the one asked for
    │   └── RunLostError             another process took the run over
    ├── StoreError                   the database failed
    │   └── StoreBusyError           other writers held it for too long
    ├── CheckError                   a check refused the run
    │   ├── InputCheckError
    │   └── OutputCheckError
    ├── HookError                    a hook or an instruction function raised
    ├── ShutdownError                `kern.shutdown()` has begun, and no new run starts
    ├── ReplayMismatch               a replay differs from its recording
    ├── RunDeadlineExceeded          the run took longer than its deadline
    └── UsageLimitExceeded           a limit on requests, tokens, tool calls or cost is reached

    AgentSignal                      not a failure: a tool raises it to steer the run
    ├── RetryAgentRun
    └── StopAgentRun

An error that ends a run carries the run's output as `run_output` (status ERROR, already committed). If the
commit itself fails with a `StoreError` or `SessionDeletedError`, nothing is stored.
"""

from __future__ import annotations

from typing import Any

from kern._error_text import counted
from kern._failed_run import FailedRun
from kern._json import value_text
from kern._portable import Portable


class KernError(Portable):
    """The base class of all errors. They can be copied and pickled, so they cross process boundaries."""

    run_output: FailedRun | None = None
    """The output of the run that this error ended; None outside a run. Pickling converts content to JSON."""


class UsageError(KernError):
    """The program calls Kern in a way that cannot work; the message says what to write instead."""


class MissingExtraError(UsageError):
    """An optional package is needed but not installed.

    Args:
        package: The package's name on PyPI.
        extra: The extra of `kern-agents` that installs it.
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"the package {package!r} is not installed; run pip install 'kern-agents[{extra}]'")
        self.package, self.extra = package, extra


class MissingKeyError(UsageError):
    """The model has no API key: none was passed, and the environment variable is not set."""


class ModelError(KernError):
    """A request to a model failed.

    Args:
        message: What happened; secrets are masked.
        provider: The provider's name, such as "openai".
        model: The model's id, such as "gpt-5.2".
    """

    def __init__(self, message: str, *, provider: str = "", model: str = "") -> None:
        where = "/".join(part for part in (provider, model) if part)
        super().__init__(f"{where}: {message}" if where else message)
        self.provider = provider
        self.model = model

    usage: Any = None
    """The `Usage` of an answer that was discarded, as far as it is known; it is billed all the same."""


class ModelConnectionError(ModelError):
    """The provider could not be reached, or the connection broke."""


class ModelTimeoutError(ModelConnectionError):
    """The provider did not answer in time."""


class ModelStreamError(ModelError):
    """The answer ended too early, contains an error, or does not follow the provider's protocol."""


class ModelIncompleteError(ModelStreamError):
    """The provider cut the answer at a token limit or by a content filter. The same request would end
    the same way at the same price, so it is not repeated; `fallback_models` are tried.

    Args:
        message: What happened, and what to do about it.
        reason: "max_output_tokens" or "content_filter".
        usage: The `Usage` of the request; an incomplete answer is billed, too.
        content: The text received before the cut.
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
        message: The provider's error text.
        status: The HTTP status code.
        code: The provider's error code, such as "model_not_found".
        request_id: The provider's id of the request; its support asks for it.
        retry_after: How many seconds to wait before the next attempt, if the provider says so.
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
        self.status, self.code = status, code
        self.request_id, self.retry_after = request_id, retry_after


class ModelBadRequestError(ModelStatusError):
    """The provider rejected the request as invalid (400, 413, 422 and other 4xx)."""


class ModelAuthError(ModelStatusError):
    """The provider rejected the API key (401), or the key lacks permission (403)."""


class ModelNotFoundError(ModelStatusError):
    """The provider does not know the model or the address (404)."""


class ModelRateLimitError(ModelStatusError):
    """The provider's rate limit or quota is exceeded (429)."""


class ModelServerError(ModelStatusError):
    """The provider failed (408, 409, 5xx)."""


class ModelServerStreamError(ModelStreamError, ModelServerError):
    """The provider failed while it answered: the HTTP status was 200, and the stream contains the error.

    `status` is the HTTP status that the provider uses for this error elsewhere.
    """


class ModelBehaviorError(KernError):
    """The model's answers do not fit what was asked for, even after it was asked to correct them."""

    usage: Any = None
    """The `Usage` of the answer, where it was thrown away."""


class ToolError(KernError):
    """A tool call failed; `tool` is the tool's name."""

    def __init__(self, message: str, *, tool: str = "") -> None:
        super().__init__(message)
        self.tool = tool


class ToolArgumentsError(ToolError):
    """The model called a tool with arguments that do not fit its parameters."""


class ToolTimeoutError(ToolError):
    """A tool call took longer than its `timeout`."""


class StateError(KernError):
    """The base class of errors of the session state."""


class InvalidStateError(StateError):
    """The session state contains a value that is not JSON, or that does not fit its declared type.

    Args:
        message: What is wrong with the value.
        path: Where the value is, as a JSON Pointer (RFC 6901): "/shopping_list/2".
    """

    def __init__(self, message: str, *, path: str = "") -> None:
        super().__init__(f"session_state{path}: {message}")
        self.path = path


class StateLockTimeout(StateError):
    """A tool call or hook waited longer than allowed for the session state.

    Args:
        waiter: The call that waited, such as "add of Cook" (function and agent).
        holder: The call that holds the state's lock.
        seconds: How long the call waited.
    """

    def __init__(self, *, waiter: str, holder: str, seconds: float) -> None:
        super().__init__(
            f"{waiter} waited {seconds:g} s for the session state, which is locked by {holder}; "
            "do slow I/O before the first use of session_state, or read with run_context.snapshot()"
        )
        self.waiter = waiter
        self.holder = holder
        self.seconds = seconds


class SessionError(KernError):
    """The base class of errors of a session and its runs."""


class SessionOwnershipError(SessionError):
    """The session belongs to a user other than the one who asks for it."""

    def __init__(self, session_id: str) -> None:
        super().__init__(f"session {session_id!r} belongs to another user: pass its owner as user_id=")
        self.session_id = session_id


class SessionDeletedError(SessionError):
    """The session was deleted while it was in use; the run or change that used it was not saved."""

    def __init__(self, session_id: str) -> None:
        super().__init__(
            f"session {session_id!r} was deleted while it was in use, so this run or change was not saved; "
            "a new run with that session_id starts a new session"
        )
        self.session_id = session_id


_BUSY = "is used by another run, and on_busy is 'reject': try again later"


class SessionBusyError(SessionError):
    """Another run uses the session, and this run does not wait (`on_busy="reject"`) or could wait forever.

    Args:
        session_id: The busy session.
        why: The rest of the sentence that begins with the session; by default it explains `on_busy="reject"`.
        run_id: The run that was asked for, if it is itself in progress, in another process.
    """

    def __init__(self, session_id: str, why: str | None = None, *, run_id: str | None = None) -> None:
        super().__init__(f"session {session_id!r} {why or _BUSY}")
        self.session_id, self.why, self.run_id = session_id, why, run_id


class RunConflictError(SessionError):
    """The run is in progress elsewhere, is being continued or has ended: two clicks on a button lead here."""


class RunMismatch(RunConflictError):
    """The `run_id` belongs to another request: `what` differs (an id stands for one request)."""

    def __init__(self, run_id: str, what: str) -> None:
        super().__init__(f"run_id {run_id!r} belongs to a run of another {what}; choose another run_id")
        self.run_id, self.what = run_id, what


class RunLostError(SessionError):
    """Another process took the run over or ended it; what this process did since then is not saved.

    It happens to a process that was frozen for longer than its claim to the run is valid.
    """

    def __init__(self, run_id: str) -> None:
        super().__init__(
            f"run {run_id!r} was taken over by another process while this one was frozen; "
            "read its result with get_run_output() when it has ended"
        )
        self.run_id = run_id


class StoreError(KernError):
    """The database could not do what was asked; what should have been saved is not saved."""


class StoreBusyError(StoreError):
    """Other writers held the database for longer than its `busy_timeout`."""


class CheckError(KernError):
    """A check, such as a guardrail, refused the run."""


class InputCheckError(CheckError):
    """A check refused the input."""


class OutputCheckError(CheckError):
    """A check refused the output."""


class HookError(KernError):
    """A hook or an instruction function raised; `hook` is its name, and `__cause__` the original error."""

    def __init__(self, message: str, *, hook: str = "") -> None:
        super().__init__(message)
        self.hook = hook


class ShutdownError(KernError):
    """`kern.shutdown()` has begun on this event loop; no new run starts until it has returned."""


class ReplayMismatch(KernError):
    """A replayed run differs from its recording; the message shows the difference."""


class RunDeadlineExceeded(KernError):
    """The run took longer than its deadline."""


class UsageLimitExceeded(KernError):
    """The next request or tool call would exceed `max_requests`, `tool_call_limit` or one of `UsageLimits`.

    Args:
        what: What is limited, as a plural, such as "requests" or "US dollars".
        limit: The value of the limit.
        budget: The name of the `UsageBudget`; "" if the limit belongs to none.
        why: What is wrong with the limit, as the end of the sentence.
    """

    def __init__(self, what: str, limit: float, *, budget: str = "", why: str = "is reached") -> None:
        whose = f"the budget {budget!r}" if budget else "the limit"
        super().__init__(f"{whose} of {counted(limit, what)} {why}")
        self.what, self.limit, self.budget = what, limit, budget


class AgentSignal(Portable):
    """A tool raises a signal to steer the run; its changes to the session state are committed.

    The model reads `message` as the result of the call: any value, which is written as a tool's result is.
    """

    def __init__(self, message: object = "") -> None:
        self.message: str = value_text(message)
        super().__init__(self.message)


class RetryAgentRun(AgentSignal):
    """Ask the model to try again; it reads the message as the call's result."""


class StopAgentRun(AgentSignal):
    """End the run after this turn, with the message as the call's result."""
