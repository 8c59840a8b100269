"""The events of a run, as a table: what comes, in which order, and that streaming or not ends the same."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from kern import Agent, RunContext, RunStatus, Team, tool
from kern.errors import KernError, ModelError
from kern.models.base import ModelResponse
from kern.run import BaseRunEvent, RunOutput, TeamRunOutput, event_from_dict
from kern.run.events import TERMINAL_EVENTS
from kern.runner.compile import database_of
from kern.testing import FunctionModel, ScriptedModel, tool_call


def add(run_context: RunContext, item: str) -> str:
    """Add an item."""
    run_context.session_state["items"].append(item)
    return f"added {item}"


@tool(requires_confirmation=True)
def risky() -> str:
    """Do something risky."""
    return "done"


def calls(*wanted: Any) -> ModelResponse:
    return ModelResponse.of(None, *wanted)


def delegate(*members: str) -> ModelResponse:
    return calls(*(tool_call("delegate_task_to_member", member_id=m, task="x") for m in members))


def worker(name: str, *answers: Any) -> Agent:
    return Agent(name=name, model=ScriptedModel(list(answers)), tools=[add, risky])


def plain() -> Agent:
    return Agent(model=ScriptedModel(["hello there"]))


def with_tool() -> Agent:
    return Agent(
        model=ScriptedModel([tool_call("add", item="milk"), "ok"]), tools=[add], session_state={"items": []}
    )


def delegation() -> Team:
    return Team([worker("A", "a")], model=ScriptedModel([delegate("a"), "ok"]))


def parallel() -> Team:
    members = [worker("A", tool_call("add", item="x"), "a"), worker("B", tool_call("add", item="x"), "b")]
    return Team(members, model=ScriptedModel([delegate("a", "b"), "ok"]), session_state={"items": []})


def nested() -> Team:
    inner = Team([worker("A", "a")], name="Inner", model=ScriptedModel([delegate("a"), "i"]))
    return Team([inner], model=ScriptedModel([delegate("inner"), "ok"]))


def error_in_member() -> Team:
    return Team([worker("A", ModelError("broken"))], model=ScriptedModel([delegate("a"), "ok"]))


def error_in_leader() -> Team:
    return Team([worker("A", "a")], model=ScriptedModel([delegate("a"), ModelError("broken")]))


def pause() -> Agent:
    return Agent(model=ScriptedModel([tool_call("risky")]), tools=[risky])


MODEL = ["ModelRequestStarted", "ModelRequestCompleted"]
TEAM_MODEL = ["TeamModelRequestStarted", "TeamModelRequestCompleted"]
MEMBER = ["RunStarted", "ModelRequestStarted", "RunContent", "ModelRequestCompleted"]
ENDED = ["RunContentCompleted", "RunCompleted"]
TEAM_END = [
    "TeamModelRequestStarted",
    "TeamRunContent",
    "TeamModelRequestCompleted",
    "TeamRunContentCompleted",
    "TeamRunCompleted",
]

TABLE: list[tuple[Callable[[], Any], list[str]]] = [
    (plain, ["RunStarted", MODEL[0], "RunContent", "RunContent", MODEL[1], *ENDED]),
    (
        with_tool,
        [
            "RunStarted",
            *MODEL,
            "ToolCallStarted",
            "SessionStateChanged",
            "ToolCallCompleted",
            MODEL[0],
            "RunContent",
            MODEL[1],
            *ENDED,
        ],
    ),
    (
        delegation,
        [
            "TeamRunStarted",
            *TEAM_MODEL,
            "TeamToolCallStarted",
            *MEMBER,
            *ENDED,
            "TeamToolCallCompleted",
            *TEAM_END,
        ],
    ),
    (
        nested,
        [
            "TeamRunStarted",
            *TEAM_MODEL,
            "TeamToolCallStarted",
            "TeamRunStarted",
            *TEAM_MODEL,
            "TeamToolCallStarted",
            *MEMBER,
            *ENDED,
            "TeamToolCallCompleted",
            *TEAM_END,
            "TeamToolCallCompleted",
            *TEAM_END,
        ],
    ),
    (
        error_in_member,
        [
            "TeamRunStarted",
            *TEAM_MODEL,
            "TeamToolCallStarted",
            "RunStarted",
            "ModelRequestStarted",
            "RunError",
            "TeamToolCallError",
            "TeamToolCallCompleted",
            *TEAM_END,
        ],
    ),
    (
        error_in_leader,
        [
            "TeamRunStarted",
            *TEAM_MODEL,
            "TeamToolCallStarted",
            *MEMBER,
            *ENDED,
            "TeamToolCallCompleted",
            "TeamModelRequestStarted",
            "TeamRunError",
        ],
    ),
    (pause, ["RunStarted", *MODEL, "ToolCallStarted", "RunPaused"]),
]
RUNNERS = [make for make, _ in TABLE] + [parallel]


async def stream(runner: Any, **options: Any) -> tuple[list[BaseRunEvent], Any, KernError | None]:
    """All events, the output, and the error that was raised."""
    items, error = [], None
    try:
        async for item in runner.arun(
            "go", stream=True, stream_events=True, yield_run_output=True, **options
        ):
            items.append(item)
    except KernError as raised:
        error = raised
    output = items.pop() if isinstance(items[-1], RunOutput | TeamRunOutput) else None
    return items, output, error


@pytest.mark.parametrize(("make", "names"), TABLE, ids=lambda value: getattr(value, "__name__", ""))
async def test_the_sequence(make: Callable[[], Any], names: list[str]) -> None:
    events, output, error = await stream(make())
    assert [event.event for event in events] == names
    assert output is not None
    assert (error is not None) == (output.status is RunStatus.error)


@pytest.mark.parametrize("make", RUNNERS)
async def test_what_holds_for_every_stream(make: Callable[[], Any]) -> None:
    events, output, _ = await stream(make())
    assert [event.seq for event in events] == sorted({event.seq for event in events})
    top = [event for event in events if event.run_id == output.run_id]
    assert sum(isinstance(event, TERMINAL_EVENTS) for event in top) == 1
    assert isinstance(events[-1], TERMINAL_EVENTS)
    assert all(getattr(event, "content", "") is not None for event in events if "RunContent" in event.event)
    for event in events:
        assert event.created_at > 0
        assert event.session_id == output.session_id
        assert (event.parent_run_id is None) == (event.nested_depth == 0)
        plain_event = json.loads(event.to_json())
        assert json.loads(event_from_dict(plain_event).to_json()) == plain_event
    started = {event.run_id for event in events if event.event.endswith("RunStarted")}
    assert {event.run_id for event in events} == started
    for run_id in started:  # each run's own order
        mine = [event.event.removeprefix("Team") for event in events if event.run_id == run_id]
        assert mine[0] == "RunStarted"
        assert mine[-1] in ("RunCompleted", "RunError", "RunPaused")


def essence(output: Any) -> dict[str, Any]:
    """An output without ids and times."""
    return {
        "status": output.status,
        "content": output.content,
        "state": output.session_state,
        "tools": sorted((t.tool_name, t.result, t.tool_call_error) for t in output.tools),
        "messages": [(m.role, m.content, len(m.tool_calls)) for m in output.messages],
        "requests": output.metrics.requests,
        "error": output.error,
        "members": [essence(member) for member in getattr(output, "member_responses", ())],
    }


async def outcome(runner: Any) -> Any:
    try:
        return await runner.arun("go")
    except KernError as error:
        return error.run_output


@pytest.mark.parametrize("make", RUNNERS)
async def test_streaming_or_not_ends_the_same(make: Callable[[], Any]) -> None:
    _, streamed, _ = await stream(make())
    assert essence(await outcome(make())) == essence(streamed)


@pytest.mark.parametrize("mode", ["coordinate", "broadcast"])
def test_four_faces_of_one_run(mode: str) -> None:
    """run, arun and both streams: equal outputs, states and rows, ids and times aside."""

    def team() -> Team:
        tool_name = "delegate_task_to_members" if mode == "broadcast" else "delegate_task_to_member"
        first = (
            calls(tool_call(tool_name, task="x"))
            if mode == "broadcast"
            else calls(*(tool_call(tool_name, member_id=m, task="x") for m in ("a", "b")))
        )
        members = [worker(name, tool_call("add", item="x"), f"{name} did") for name in ("A", "B")]
        model = ScriptedModel([first, "all done"])
        return Team(members, id="t", model=model, mode=mode, session_state={"items": []})

    async def stream_async(runner: Team) -> Any:
        return (await stream(runner))[1]

    def stream_sync(runner: Team) -> Any:
        return list(runner.run("go", stream=True, stream_events=True, yield_run_output=True))[-1]

    faces: list[Callable[[Team], Any]] = [
        lambda runner: runner.run("go"),
        lambda runner: asyncio.run(runner.arun("go")),
        stream_sync,
        lambda runner: asyncio.run(stream_async(runner)),
    ]
    seen = []
    for face in faces:
        runner = team()
        output = face(runner)
        rows = asyncio.run(database_of(runner).load_runs(output.session_id, top_level=False))
        seen.append(
            (
                essence(output),
                runner.get_session_state(),
                sorted(
                    (row.runner_id, row.status, row.parent_run_id is None, row.generation) for row in rows
                ),
            )
        )
    assert seen[0][1] == {"items": ["x", "x"]}
    assert len(seen[0][2]) == 3
    assert all(one == seen[0] for one in seen)


async def test_plain_streaming_yields_the_text_alone() -> None:
    for make in (plain, with_tool, delegation, parallel, nested):
        events = [event async for event in make().arun("go", stream=True)]
        assert {event.event.removeprefix("Team") for event in events} == {"RunContent"}
        assert all(event.nested_depth == 0 for event in events)
    events = [event async for event in pause().arun("go", stream=True)]
    assert [event.event for event in events] == ["RunPaused"]


@pytest.mark.parametrize("streaming", [False, True])
async def test_events_are_stored_on_demand(streaming: bool) -> None:
    team = delegation()
    team.store_events = True
    output = (await stream(team))[1] if streaming else await team.arun("go")
    names = [event.event for event in output.events]
    assert names == [name for name in TABLE[2][1] if name not in ("RunContent", "TeamRunContent")]
    stored = await team.aget_run_output(output.run_id)
    assert stored is not None
    assert [event.event for event in stored.events] == names


async def test_a_cancelled_stream_says_so() -> None:
    async def slow(request: Any) -> str:
        await asyncio.sleep(30)
        return "never"

    team = Team([Agent(name="A", model=FunctionModel(slow))], model=ScriptedModel([delegate("a")]))
    names = []
    async for event in team.arun("go", stream=True, stream_events=True, run_id="r"):
        names.append(event.event)
        if event.event == "ModelRequestStarted":
            assert await team.acancel_run("r")
    assert names[-2:] == ["RunCancelled", "TeamRunCancelled"]


async def test_a_slow_consumer_slows_the_run_down_and_loses_nothing() -> None:
    made = 0

    class Fast(ScriptedModel):
        async def respond(self, request: Any, sink: Any) -> ModelResponse:
            nonlocal made
            for number in range(5000):
                sink.content(f"{number} ")
                made += 1
                if sink.full:
                    await sink.drain()
            return ModelResponse.of("x")

    seen: list[str] = []
    async for event in Agent(model=Fast([])).arun("go", stream=True):
        assert made - len(seen) < 600
        seen.append(event.content)
    assert seen == [f"{number} " for number in range(5000)]


@pytest.mark.parametrize("how", ["RunCompleted", "RunPaused", "RunError"])
async def test_stored_events_have_the_numbers_that_were_heard_also_the_last_one(how: str) -> None:
    end: Any = ModelError("down") if how == "RunError" else "done"
    agent = Agent(
        model=ScriptedModel([calls(tool_call("risky" if how == "RunPaused" else "safe")), end]),
        tools=[risky, tool(safe)],
        store_events=True,
        events_to_skip=[],
        session_id="s",
    )
    heard = []
    try:
        async for event in agent.arun("go", run_id="r", stream=True, stream_events=True):
            heard.append(event)
    except ModelError:
        assert how == "RunError"
    stored = await agent.aget_run_output("r")
    assert stored is not None
    assert heard[-1].event == how
    assert [(event.event, event.seq) for event in stored.events] == [(each.event, each.seq) for each in heard]


def safe() -> str:
    """Do something safe."""
    return "done"
