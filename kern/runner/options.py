"""What one run may be told, beside its input: the keywords of `run` and `arun`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Any, TypeAlias, TypedDict

import pydantic

from kern.budget import Limits
from kern.durable.journal import Journal
from kern.messages import Audio, File, Image, Video
from kern.run.requirement import RunRequirement
from kern.runner.checks import check_keywords, check_run
from kern.runtime.request import OnDuplicate

OutputSchema: TypeAlias = type[Any] | Mapping[str, Any] | UnionType
"""What a structured answer may be declared as; see `Agent`."""


class Keywords(TypedDict, total=False):
    """The keywords of all runs, for type checkers; `RunOptions` says what they mean."""

    user_id: str | None
    dependencies: Mapping[str, Any] | None
    output_schema: OutputSchema | None
    timeout: float | None
    usage_limits: Limits | None
    debug_mode: bool | None
    journal: Journal | None


class AnyRunKeywords(Keywords, total=False):
    """The keywords of new and of continued runs."""

    stream_events: bool | None
    run_id: str | None


class MapKeywords(Keywords, total=False):
    """The keywords of many runs at once."""

    session_state: Mapping[str, Any] | pydantic.BaseModel | None
    images: Sequence[Image] | None
    audio: Sequence[Audio] | None
    videos: Sequence[Video] | None
    files: Sequence[File] | None
    add_history_to_context: bool | None
    add_session_state_to_context: bool | None
    add_dependencies_to_context: bool | None
    metadata: Mapping[str, Any] | None


class RunKeywords(AnyRunKeywords, MapKeywords, total=False):
    """The keywords of a new run."""

    session_id: str | None
    on_duplicate: OnDuplicate | None


class ContinueKeywords(AnyRunKeywords, total=False):
    """The keywords of `continue_run`, beside the run itself."""

    requirements: Sequence[RunRequirement] | None


@dataclass(slots=True, frozen=True, kw_only=True)
class RunOptions:
    """The keywords of a run. None means the constructor's value.

    Args:
        stream_events: With `stream=True`: every event of the tree, not only the answer's text.
        session_id: The session to go on with; without one, the default session of this object and user.
        session_state: Merged deep over the stored state (dicts merge, anything else replaces). With a typed
            state also an instance: of it, the fields that were set or differ from their defaults.
        user_id: Whose session it is.
        run_id: An id of your own for the run; looked up before anything is done.
        on_duplicate: With a `run_id` that is taken: "raise" a `RunConflictError`; "return" the stored output,
            or wait for that of a run that goes on in this process; or "retry_failed": run again if that run
            has failed or was cancelled. A run that waits for a person raises. None: "raise"; with a journal
            "return", which then returns the output of a run that waits as well.
        images, audio, videos, files: Sent with the input.
        dependencies: For `{templates}` and for `run_context.dependencies`.
        metadata: Noted on the run.
        output_schema: What the run's answer has to look like, in place of the constructor's; see `Agent`.
        timeout: Seconds that the run may take; then `RunDeadlineExceeded`.
        usage_limits: What the run and all runs below it may use; then `UsageLimitExceeded`.
            `UsageLimits` are each run's own, a `UsageBudget` is shared.
        debug_mode: Log prompts and tool calls of this run.
        journal: Where the steps of this run are kept; see `DbJournal`.
    """

    stream_events: bool | None = None
    session_id: str | None = None
    session_state: Mapping[str, Any] | pydantic.BaseModel | None = None
    user_id: str | None = None
    run_id: str | None = None
    on_duplicate: OnDuplicate | None = None
    images: Sequence[Image] | None = None
    audio: Sequence[Audio] | None = None
    videos: Sequence[Video] | None = None
    files: Sequence[File] | None = None
    add_history_to_context: bool | None = None
    add_session_state_to_context: bool | None = None
    add_dependencies_to_context: bool | None = None
    dependencies: Mapping[str, Any] | None = None
    metadata: Mapping[str, Any] | None = None
    output_schema: OutputSchema | None = None
    timeout: float | None = None
    usage_limits: Limits | None = None
    debug_mode: bool | None = None
    journal: Journal | None = None

    @property
    def leaves_the_spec(self) -> bool:
        """They say nothing of who runs, only on which terms."""
        return (
            self.output_schema is None
            and self.add_history_to_context is None
            and self.add_session_state_to_context is None
            and self.add_dependencies_to_context is None
        )

    @classmethod
    def of(cls, keywords: RunKeywords) -> RunOptions:
        """What a program has passed to a run.

        Raises:
            TypeError: There is no such keyword.
            UsageError: A value cannot be what its keyword takes.
        """
        if not keywords.keys() <= _NAMES:
            check_keywords("a run", keywords, _NAMES)
        check_run(keywords)
        return cls(**keywords)


_NAMES = RunOptions.__dataclass_fields__.keys()

NO_OPTIONS = RunOptions()
