"""What a run is asked, and on which terms."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pydantic

from kern.budget import Limits
from kern.db.base import Db
from kern.durable.journal import Journal
from kern.messages import Message
from kern.models.base import Model
from kern.run.requirement import RunRequirement
from kern.state.state_spec import StateSpec

OnBusy = Literal["share", "queue", "reject"]
"""What a run does when its session has one already: work beside it, wait for its end, or refuse."""

OnDuplicate = Literal["raise", "return", "retry_failed"]
"""What a run does whose id is taken: refuse, come to the stored output, or try a failed one again."""


@dataclass(slots=True, kw_only=True)
class RunInput:
    """What a run is asked; hooks before the run may change it.

    Args:
        value: The input as the output repeats it: text or JSON.
        messages: The same as messages, usually one of role "user".
    """

    value: Any
    messages: list[Message]

    @property
    def input_content(self) -> str:
        """The text of the input; assign to replace it, in the run and in what is stored."""
        return self.messages[-1].content or ""

    @input_content.setter
    def input_content(self, text: str) -> None:
        self.messages[-1] = replace(self.messages[-1], content=text, said=None)
        self.value = text


@dataclass(slots=True, frozen=True)
class Resume:
    """The answers of people for a paused run.

    Args:
        requirements: The answers, those on record of a continuation that has died before those of this call.
        given: The answers of this call, if there are some on record.
    """

    requirements: Sequence[RunRequirement]
    given: Sequence[RunRequirement] = ()


@dataclass(slots=True, frozen=True)
class Retries:
    """What a run does when a model request has failed for good, its own retries included.

    What the run has done so far is kept: only the request is made again.

    Args:
        count: How often it is made again.
        delay: Seconds before that.
        exponential: Double the delay each time.
        fallbacks: Models that are asked after that, in this order.
    """

    count: int = 0
    delay: float = 1.0
    exponential: bool = False
    fallbacks: Sequence[Model] = ()

    def wait(self, attempt: int) -> float:
        """Seconds before attempt number `attempt` of one model; its first one (0) comes at once."""
        if attempt == 0:
            return 0.0
        return self.delay * (2 ** (attempt - 1) if self.exponential else 1)


@dataclass(slots=True, frozen=True, kw_only=True)
class RunTerms:
    """The terms of a run that the application asks for: all but who runs, and on what.

    Args:
        db: Where the session is kept.
        state: What is declared of the session's state.
        session_state: The run's own `session_state=`, or None.
        overwrite_state: Drop what is stored before that is merged in.
        on_busy: What to do when the session has a run already.
        on_duplicate: What to do when a run of that id is stored, or goes on; None for an id that was made for
            this run, which is not looked up.
        timeout: Seconds that the run may take, from now on.
        usage_limits: What the run and all below it may use.
        resume: Go on with a paused run instead of beginning one.
        skip_events: Keep the run's events with it, but for those of these names; None: keep none.
        debug: How much is logged of the run: the `debug_level`, or 0.
        journal: Where the steps of the run are kept, if it is to have a journal.
        fingerprint: Identifies the input as the caller gave it; None if the caller gave no run id.
    """

    db: Db
    run_id: str
    session_id: str
    user_id: str | None = None
    state: StateSpec = field(default_factory=StateSpec)
    session_state: Mapping[str, Any] | pydantic.BaseModel | None = None
    overwrite_state: bool = False
    on_busy: OnBusy = "share"
    on_duplicate: OnDuplicate | None = None
    dependencies: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    timeout: float | None = None
    usage_limits: Limits | None = None
    resume: Resume | None = None
    skip_events: Collection[str] | None = None
    debug: int = 0
    journal: Journal | None = None
    fingerprint: str | None = None
