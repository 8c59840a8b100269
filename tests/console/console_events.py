"""Events of made-up runs, for tests of the views."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from kern.console import View
from kern.run import (
    BaseRunEvent,
    EventSource,
    ModelRequestStartedEvent,
    RunCompletedEvent,
    RunContentCompletedEvent,
    RunContentEvent,
    RunOutput,
    RunStartedEvent,
    RunStatus,
    TeamRunOutput,
    ToolCallCompletedEvent,
    ToolCallStartedEvent,
    ToolExecution,
)
from kern.usage import Metrics

LEADER = EventSource(
    run_id="run-0", session_id="s", team_id="shop", team_name="Shop", is_team=True, path=("Shop",)
)
SOLO = EventSource(run_id="run-0", session_id="s", agent_id="solo", agent_name="Solo", path=("Solo",))


def member(name: str) -> EventSource:
    return EventSource(
        run_id=f"run-{name}",
        session_id="s",
        parent_run_id="run-0",
        agent_id=name.lower(),
        agent_name=name,
        nested_depth=1,
        path=("Shop", name),
    )


def call(name: str, *, error: bool = False, result: str = "ok", **arguments: Any) -> ToolExecution:
    return ToolExecution(
        f"call-{name}-{sorted(arguments.items())}",
        name,
        arguments,
        result=result,
        tool_call_error=error,
        duration=0.2,
    )


def turn(source: EventSource, *pieces: str) -> Iterator[BaseRunEvent]:
    yield ModelRequestStartedEvent(source)
    for piece in pieces:
        yield RunContentEvent(source, piece)


def tool(source: EventSource, execution: ToolExecution) -> Iterator[BaseRunEvent]:
    yield ToolCallStartedEvent(source, execution)
    yield ToolCallCompletedEvent(source, execution)


def end(source: EventSource) -> Iterator[BaseRunEvent]:
    yield RunContentCompletedEvent(source)
    yield RunCompletedEvent(source)


def team_run(*answer: str, member_answer: str = "Bought.") -> Iterator[BaseRunEvent]:
    """A leader that delegates to a Buyer, who calls a tool, and then answers."""
    delegation = call("delegate_task_to_member", member_id="buyer", task="Buy it")
    delegation.child_run_id = "run-Buyer"
    buyer = member("Buyer")
    yield RunStartedEvent(LEADER)
    yield from turn(LEADER)
    yield ToolCallStartedEvent(LEADER, delegation)
    yield RunStartedEvent(buyer)
    yield from turn(buyer)
    yield from tool(buyer, call("add_item", item="milk"))
    yield from turn(buyer, member_answer)
    yield from end(buyer)
    yield ToolCallCompletedEvent(LEADER, delegation)
    yield from turn(LEADER, *answer)
    yield from end(LEADER)


def feed(view: View, events: Iterable[BaseRunEvent]) -> None:
    for event in events:
        view.event(event)


def team_output(content: Any, **values: Any) -> TeamRunOutput:
    values = {"status": RunStatus.completed, "metrics": Metrics(duration=1.25), "team_name": "Shop"} | values
    return TeamRunOutput(run_id="run-0", session_id="s", content=content, **values)


def agent_output(content: Any, **values: Any) -> RunOutput:
    values = {"status": RunStatus.completed, "metrics": Metrics(duration=1.25), "agent_name": "Solo"} | values
    return RunOutput(run_id=values.pop("run_id", "run-0"), session_id="s", content=content, **values)
