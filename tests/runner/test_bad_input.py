"""What goes in wrong: each mistake has its error, a run that says so, a whole state, and leaves nothing.

Over real sockets and real files, for an agent and for a team.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kern import Agent, KernError, RunContext, RunStatus, Team, UsageError, tool
from kern.db.sqlite import SqliteDb
from kern.errors import (
    InvalidStateError,
    MissingKeyError,
    ModelAuthError,
    ModelConnectionError,
    ModelNotFoundError,
    ModelStreamError,
    StoreError,
)
from kern.messages import ToolCall
from kern.models.openai import OpenAIChat, OpenAIResponses
from kern.run.events import RunErrorEvent
from kern.testing import Answer, Fault, ModelServer, ScriptedModel, no_leaks, tool_call

STATE = {"items": ["milk"]}
Runner = Agent | Team
Make = Callable[..., Runner]


def add_item(run_context: RunContext, item: str) -> str:
    """Put an item on the list."""
    run_context.session_state["items"].append(item)
    return f"added {item}"


def agent(**options: Any) -> Agent:
    return Agent(**{"name": "Keeper", "tools": [add_item], "session_state": STATE, **options})


def team(**options: Any) -> Team:
    helper = Agent(name="Helper", role="Helps")
    return Team(**{"members": [helper], "tools": [add_item], "session_state": STATE, **options})


@pytest.fixture(params=[agent, team])
def make(request: pytest.FixtureRequest) -> Make:
    made: Make = request.param
    return made


@pytest.fixture(params=[OpenAIResponses, OpenAIChat])
def protocol(request: pytest.FixtureRequest) -> type[OpenAIResponses] | type[OpenAIChat]:
    chosen: type[OpenAIResponses] | type[OpenAIChat] = request.param
    return chosen


@pytest.fixture
def db(tmp_path: Path) -> SqliteDb:
    return SqliteDb(tmp_path / "sessions.db")


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that nobody listens on, and that stays ours."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def model_of(server: ModelServer, id: str = "gpt-5.2") -> OpenAIResponses:
    return OpenAIResponses(id, base_url=server.base_url, api_key="sk-any", max_retries=0)


async def check_failed_run(
    runner: Runner, error: KernError, state: dict[str, Any] | None = None, shown: str | None = None
) -> None:
    """The error carries a run with status ERROR, the database has the same, and the state is whole."""
    output = error.run_output
    assert output.status is RunStatus.error
    assert output.error == str(error)
    assert output.error_type == type(error).__name__
    assert output.content == shown
    stored = await runner.aget_run_output(output.run_id)
    assert stored is not None
    assert (stored.status, stored.content) == (RunStatus.error, shown)
    assert await runner.aget_session_state() == (state or STATE)


async def test_no_key(make: Make, protocol: Any, db: SqliteDb, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    runner = make(model=protocol(id="gpt-5.2"), db=db)
    async with no_leaks():
        with pytest.raises(MissingKeyError, match="OPENAI_API_KEY"):
            await runner.arun("Hello", session_id="new")
    assert await runner.aget_session("new") is None


async def test_an_unknown_model(make: Make, protocol: Any, db: SqliteDb) -> None:
    async with ModelServer([], models=["gpt-5.2"]) as server:
        runner = make(model=protocol(id="no-such", base_url=server.base_url, api_key="sk-any"), db=db)
        async with no_leaks(server):
            with pytest.raises(ModelNotFoundError, match="no-such") as caught:
                await runner.arun("Hello")
    assert caught.value.status == 404
    await check_failed_run(runner, caught.value)


async def test_an_unreachable_host(make: Make, protocol: Any, db: SqliteDb, closed_port: int) -> None:
    base_url = f"http://127.0.0.1:{closed_port}/v1"
    runner = make(model=protocol(id="gpt-5.2", base_url=base_url, api_key="sk-any", max_retries=0), db=db)
    async with no_leaks():
        with pytest.raises(ModelConnectionError, match=f"127.0.0.1:{closed_port}") as caught:
            await runner.arun("Hello")
    await check_failed_run(runner, caught.value)


@pytest.mark.parametrize(
    "fault",
    [Fault.malformed(after=1), Fault.cut(after=1), Fault.cut(after=1, clean=True), Fault.failed(after=1)],
    ids=lambda fault: fault.kind,
)
async def test_a_broken_stream(make: Make, protocol: Any, db: SqliteDb, fault: Fault) -> None:
    async with ModelServer([Answer("One two three", fault=fault)]) as server:
        runner = make(model=protocol(id="gpt-5.2", base_url=server.base_url, api_key="sk-any"), db=db)
        events: list[Any] = []

        async def collect() -> None:
            async for event in runner.arun("Hello", stream=True):
                events.append(event)

        async with no_leaks(server):
            with pytest.raises((ModelStreamError, ModelConnectionError)) as caught:
                await collect()
        assert len(server.requests) == 1  # nothing is asked again once text was shown
    assert [event.content for event in events[:-1]] == ["One"]
    assert isinstance(events[-1], RunErrorEvent)
    assert events[-1].error == str(caught.value)
    await check_failed_run(runner, caught.value, shown="One")


def unwritable_paths(folder: Path) -> dict[str, Path]:
    (folder / "file").write_text("not a folder")
    (folder / "folder.db").mkdir()
    (folder / "text.db").write_text(
        "This is no database, but it is longer than an SQLite file's header." * 20
    )
    return {name: folder / name for name in ("file/sessions.db", "folder.db", "text.db")}


@pytest.mark.parametrize("name", ["file/sessions.db", "folder.db", "text.db"])
async def test_a_database_that_cannot_be_written(make: Make, tmp_path: Path, name: str) -> None:
    path = unwritable_paths(tmp_path)[name]
    async with ModelServer([]) as server:  # and the model is not asked for nothing
        runner = make(model=model_of(server), db=SqliteDb(path))
        async with no_leaks(server):
            with pytest.raises(StoreError, match=name.partition("/")[0]):
                await runner.arun("Hello")
            with pytest.raises(StoreError):
                await runner.aget_session_state()


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (object(), "/bad"),
        ({1, 2}, "/bad"),
        (b"x", "/bad"),
        (float("nan"), "/bad"),
        ([{"deep": {1: 2}}], "/bad/0/deep"),
    ],
    ids=["object", "set", "bytes", "nan", "int-key"],
)
async def test_a_state_that_is_not_json(make: Make, db: SqliteDb, value: Any, path: str) -> None:
    async with ModelServer([]) as server:
        runner = make(model=model_of(server), db=db)
        async with no_leaks(server):
            with pytest.raises(InvalidStateError) as caught:
                await runner.arun("Hello", session_state={"bad": value})
            assert caught.value.path.startswith(path)
            await check_failed_run(runner, caught.value)

            with pytest.raises(InvalidStateError):
                make(model=model_of(server), session_state={"bad": value})
            with pytest.raises(InvalidStateError):
                await runner.aupdate_session_state({"bad": value})
    assert await runner.aget_session_state() == STATE


async def test_a_tool_that_leaves_a_state_that_is_not_json(make: Make, db: SqliteDb) -> None:
    def spoil(run_context: RunContext) -> str:
        run_context.session_state["items"].append({1, 2})
        return "spoilt"

    async with ModelServer([tool_call("spoil"), "I could not."]) as server:
        runner = make(model=model_of(server), db=db, tools=[spoil])
        async with no_leaks(server):
            output = await runner.arun("Hello")
        (result,) = server.requests[1].tool_results
    assert "session_state/items/1" in (result.content or "")
    assert output.tools[0].tool_call_error
    assert output.status is RunStatus.completed
    assert output.session_state == await runner.aget_session_state() == STATE


@pytest.mark.parametrize("message", ["", " \n", [], {}], ids=repr)
async def test_an_empty_message(make: Make, db: SqliteDb, message: Any) -> None:
    async with ModelServer([]) as server:
        runner = make(model=model_of(server), db=db)
        async with no_leaks(server):
            with pytest.raises(UsageError, match="empty"):
                await runner.arun(message)
            with pytest.raises(UsageError, match="empty"):
                async for _ in runner.arun(message, stream=True):
                    pass
    assert await runner.aget_session() is None


async def test_an_unknown_keyword_runs_nothing(make: Make, db: SqliteDb) -> None:
    async with ModelServer([]) as server:
        runner = make(model=model_of(server), db=db)
        async with no_leaks(server):
            with pytest.raises(TypeError, match="sesion_id"):
                await runner.arun("Hello", sesion_id="1")
    assert await runner.aget_session() is None


async def test_a_message_of_a_megabyte(make: Make, protocol: Any, db: SqliteDb) -> None:
    message = "Ünïcödé \u2028 " * 70_000
    assert len(message.encode()) > 1_000_000
    async with ModelServer(["Long.", "Still here."]) as server:
        runner = make(model=protocol(id="gpt-5.2", base_url=server.base_url, api_key="sk-any"), db=db)
        async with no_leaks(server):
            output = await runner.arun(message)
            async with runner.arun(message, stream=True) as events:
                assert "".join([event.content async for event in events]) == "Still here."
        assert [request.user_text for request in server.requests] == [message, message]
    stored = await runner.aget_run_output(output.run_id)
    assert stored is not None
    assert stored.input == message


async def goes_on(runner: Runner, server: ModelServer) -> tuple[str, Any]:
    """Run to the end after a call that could not be made; what the model was told, and the output."""
    async with no_leaks(server):
        output = await runner.arun("Hello")
    (result,) = server.requests[1].tool_results
    assert output.status is RunStatus.completed
    assert output.content == "Never mind."
    assert [tool.tool_call_error for tool in output.tools] == [True]
    assert output.tools[0].result == result.content
    assert output.session_state == await runner.aget_session_state() == STATE
    return result.content or "", output


async def test_the_model_names_an_unknown_tool(make: Make, db: SqliteDb) -> None:
    async with ModelServer([tool_call("drop_table"), "Never mind."]) as server:
        told, output = await goes_on(make(model=model_of(server), db=db), server)
    assert "drop_table" in told
    assert "add_item" in told
    assert output.tools[0].tool_name == "drop_table"


async def test_the_model_names_an_unknown_member(db: SqliteDb) -> None:
    call = tool_call("delegate_task_to_member", member_id="nobody", task="Go")
    async with ModelServer([call, "Never mind."]) as server:
        told, output = await goes_on(team(model=model_of(server), db=db), server)
    assert "nobody" in told
    assert "helper" in told
    assert output.member_responses == []


@pytest.mark.parametrize(
    "arguments", ['{"item": "eg', "[1]", '"egg"', "nonsense", '{"item": 5, "x": 1}', "{}"]
)
@pytest.mark.parametrize("name", ["add_item", "delegate_task_to_member"])
async def test_the_model_writes_broken_arguments(db: SqliteDb, name: str, arguments: str) -> None:
    async with ModelServer([ToolCall("call_1", name, arguments), "Never mind."]) as server:
        told, output = await goes_on(team(model=model_of(server), db=db), server)
    assert name in told
    assert output.tools[0].child_run_id is None


async def test_an_error_in_a_member_is_told_to_the_leader(db: SqliteDb) -> None:
    delegation = tool_call("delegate_task_to_member", member_id="helper", task="Go")
    refusal = Fault.status(400, message="too hot to answer")
    async with ModelServer([delegation, refusal, "Never mind."]) as server:
        runner = team(model=model_of(server), db=db)
        async with no_leaks(server):
            output = await runner.arun("Hello")
        (result,) = server.requests[2].tool_results
    assert "too hot to answer" in (result.content or "")
    assert output.status is RunStatus.completed
    assert [member.status for member in output.member_responses] == [RunStatus.error]


@pytest.mark.parametrize("streamed_events", [False, True])
async def test_who_prints_the_content_of_a_stream_is_told_the_error(
    make: Make, streamed_events: bool
) -> None:
    """The README's loop, with a wrong key: the event before the error has a `content` that prints nothing."""
    last = ""
    async with ModelServer([], api_key="sk-the-right-one") as server:
        model = OpenAIResponses(id="gpt-5.2", base_url=server.base_url, api_key="sk-the-wrong-one")
        with pytest.raises(ModelAuthError):
            async for event in make(model=model).arun("Hello", stream=True, stream_events=streamed_events):
                last = event.event
                if not streamed_events or isinstance(event, RunErrorEvent):
                    assert event.content == ""
    assert last.endswith("RunError")


async def test_so_is_the_end_of_a_run_that_pauses_or_is_cancelled(make: Make) -> None:
    @tool(requires_confirmation=True)
    def empty_bin() -> str:
        return "emptied"

    async def give_up(run_context: RunContext) -> None:
        await runner.acancel_run("given-up")
        await asyncio.Event().wait()

    runner = make(
        model=ScriptedModel([tool_call("empty_bin"), tool_call("give_up")]), tools=[empty_bin, give_up]
    )
    paused = [event async for event in runner.arun("Go", stream=True)]
    assert [(event.event.removeprefix("Team"), event.content) for event in paused] == [("RunPaused", "")]
    gone = [event async for event in runner.arun("Go", stream=True, run_id="given-up")]
    assert [(event.event.removeprefix("Team"), event.content) for event in gone] == [("RunCancelled", "")]
