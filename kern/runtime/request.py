"""The input of a run, and its terms."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pydantic

from kern._json import value_text
from kern.budget import Limits
from kern.db.base import Db
from kern.durable.journal import Journal
from kern.messages import Message
from kern.models.base import Model
from kern.run.requirement import RunRequirement
from kern.state.state_spec import StateSpec

OnBusy = Literal["share", "queue", "reject"]
"""What a run does if its session has a run in progress: "share" the session with it, "queue" for its end, or
"reject" the call."""

OnDuplicate = Literal["raise", "return", "retry_failed"]
"""What a run does if its id is taken: "raise" an error, "return" the stored output, or repeat a failed run
("retry_failed")."""


@dataclass(slots=True, kw_only=True)
class RunInput:
    """The input of a run. Hooks before the run may change it.

    Args:
        value: The input as the output shows it: text or JSON.
        messages: The input as messages, usually one with the role "user".
    """

    value: Any
    messages: list[Message]

    @property
    def input_content(self) -> str:
        """The text of the input; assign to replace it, in the run and in what is stored.

        A value that is no text is written as one, a dict as JSON.
        """
        return self.messages[-1].content or ""

    @input_content.setter
    def input_content(self, value: object) -> None:
        text = value_text(value)
        self.messages[-1] = replace(self.messages[-1], content=text, said=None)
        self.value = text


@dataclass(slots=True, frozen=True)
class Resume:
    """The answers of people for a paused run.

    Args:
        requirements: The answers. Recorded answers, of a continuation whose process died, come first.
        given: The answers of this call, if there are recorded ones.
    """

    requirements: Sequence[RunRequirement]
    given: Sequence[RunRequirement] = ()


@dataclass(slots=True, frozen=True)
class Retries:
    """What a run does when a model request has failed, after the retries of the model itself.

    Only the request is repeated: the run keeps what it has done so far.

    Args:
        count: How often the request is repeated.
        delay: Seconds before a repetition.
        exponential: Double the delay each time.
        fallbacks: The models to ask after that, in this order.
    """

    count: int = 0
    delay: float = 1.0
    exponential: bool = False
    fallbacks: Sequence[Model] = ()

    def wait(self, attempt: int) -> float:
        """Return the seconds to wait before attempt number `attempt` of one model; 0 for the first (0)."""
        if attempt == 0:
            return 0.0
        return self.delay * (2 ** (attempt - 1) if self.exponential else 1)


@dataclass(slots=True, frozen=True, kw_only=True)
class RunTerms:
    """The terms of a run: everything except the spec and the input.

    Args:
        db: The database of the session.
        run_id: The id of the run.
        session_id: The id of the session.
        user_id: The owner of the session, or None.
        state: The declaration of the session state.
        session_state: The `session_state=` of the run, or None.
        overwrite_state: Discard the stored state before `session_state` is merged in.
        on_busy: What to do if the session has a run in progress.
        on_duplicate: What to do if the run id is taken. None for a generated id, which is not looked up.
        dependencies: Values for templates and for the `RunContext`.
        metadata: Values to store with the run.
        timeout: How many seconds the run may take from now on; None: no limit.
        usage_limits: What the run and all runs below it may use.
        resume: Continue a paused run with these answers; None: begin a run.
        skip_events: Store the events of the run, except those with these names; None: store no events.
        debug: The `debug_level`, or 0.
        journal: Where the steps of the run are recorded; None: nowhere.
        fingerprint: Identifies the input as the caller passed it; None if the caller passed no run id.
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
