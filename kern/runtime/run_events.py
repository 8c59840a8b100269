"""The events at the start and the end of a run, and those of the session state in between."""

from __future__ import annotations

from collections.abc import Callable

from kern._error_text import message_of
from kern._json import jsonable
from kern.run.events import (
    RunCancelledEvent,
    RunCompletedEvent,
    RunContinuedEvent,
    RunErrorEvent,
    RunPausedEvent,
    RunStartedEvent,
    SessionStateChangedEvent,
)
from kern.run.output import RunStatus
from kern.runtime.run_tree import Run
from kern.state.codec import decode
from kern.state.patch import wire
from kern.state.shared_state import Change


def announce(run: Run, state: dict[str, object] | None = None, revision: int | None = None) -> None:
    """Emit the event that a run starts, or continues after a pause."""
    if run.messages:
        run.out.event(RunContinuedEvent(run.source, state, revision))
        return
    run.out.event(RunStartedEvent(run.source, run.spec.model.id, run.spec.model.provider, state, revision))


def terminal_event(
    run: Run, error: BaseException | None
) -> RunCompletedEvent | RunPausedEvent | RunCancelledEvent | RunErrorEvent:
    """Make the last event of a run. A top-level run is committed before it is emitted."""
    output = run.output
    if output.status is RunStatus.completed:  # a cancellation during the commit is too late
        return RunCompletedEvent(
            run.source,
            output.content,
            output.content_type,
            output.metrics.to_dict(),
            output.session_state,
            jsonable(output.metadata) or None,
        )
    if output.status is RunStatus.paused and error is None:
        return RunPausedEvent(run.source, output.requirements)
    if output.status is RunStatus.cancelled:
        return RunCancelledEvent(run.source, "by cancel_run" if run.cancel_token.stopped else None)
    text = output.error or ("" if error is None else message_of(error))
    return RunErrorEvent(run.source, text, output.error_type or type(error).__name__)


def announce_state(run: Run) -> Callable[[Change], None]:
    """Emit that a top-level run starts, with the current state, and from then on each commit to the state.

    Returns:
        The subscriber to the session's state, to be unsubscribed.
    """
    tree = run.tree

    def changed(change: Change) -> None:
        """Emit a commit, of any run of the session."""
        author = change.author
        tree.audience.put(
            SessionStateChangedEvent(
                run.source,
                patch=wire(change.patch),
                revision=change.revision,
                agent_path=list(author.agent_path),
                tool=author.tool,
                tool_call_id=author.tool_call_id,
                writer_run_id=author.run_id,
            )
        )

    tree.session.state.subscribe(changed, lambda text, revision: announce(run, decode(text), revision))
    return changed
