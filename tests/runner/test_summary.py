"""A summary that cannot be written does not turn a finished answer into an error."""

from __future__ import annotations

import asyncio
import logging
import re
from pathlib import Path

import pytest

from kern import Agent
from kern.db import InMemoryDb, SqliteDb
from kern.db.base import Db
from kern.errors import ModelServerError
from kern.models.base import ModelRequest, ModelResponse
from kern.run import RunStatus
from kern.testing import FunctionModel, ScriptedModel
from kern.usage import UsageLimits
from tests.clock import LONG, pass_time


async def hang(request: ModelRequest) -> ModelResponse:
    pass_time()
    await asyncio.Event().wait()
    return ModelResponse.of("never")


def broken(request: ModelRequest) -> ModelResponse:
    raise ModelServerError("upstream", status=500)


@pytest.mark.parametrize("how", ["model error", "empty script", "usage limit", "out of time"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_failing_summary_is_logged_and_the_run_is_completed(
    how: str, stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    writers = {"model error": FunctionModel(broken), "empty script": ScriptedModel([])}
    agent = Agent(
        model=ScriptedModel(["the answer", "more"]),
        session_id="s",
        enable_session_summaries=True,
        session_summary_model=writers.get(how) or FunctionModel(hang),
        usage_limits=UsageLimits(requests=1) if how == "usage limit" else None,
        timeout=LONG if how == "out of time" else None,
    )
    with caplog.at_level(logging.WARNING, logger="kern"):
        if stream:
            async with agent.arun("q", stream=True, stream_events=True, yield_run_output=True) as events:
                items = [item async for item in events]
            output = items[-1]
            assert items[-2].event == "RunCompleted"
        else:
            output = await agent.arun("q")
    assert (output.status, output.content) == (RunStatus.completed, "the answer")
    assert any("summary was not updated" in record.getMessage() for record in caplog.records)
    stored = await agent.aget_last_run_output()
    assert stored is not None
    assert stored.status is RunStatus.completed


async def test_a_run_that_is_cancelled_while_its_summary_is_written_is_cancelled() -> None:
    writing = asyncio.Event()

    async def write(request: ModelRequest) -> ModelResponse:
        writing.set()
        return await hang(request)

    agent = Agent(
        model=ScriptedModel(["the answer"]),
        session_id="s",
        enable_session_summaries=True,
        session_summary_model=FunctionModel(write),
    )
    run = asyncio.ensure_future(agent.arun("q", run_id="r"))
    await writing.wait()
    await agent.acancel_run("r")
    output = await run
    assert (output.status, output.content) == (RunStatus.cancelled, "the answer")


TASK = "You keep the summary"


async def telling(request: ModelRequest) -> str:
    """A writer that keeps what the old summary has, and adds what the user has said."""
    await asyncio.sleep(0)
    if not str(request.messages[0].content).startswith(TASK):
        return "noted"
    asked = str(request.messages[-1].content)
    facts = re.findall(r"FACT \w+", asked)
    return " ".join(dict.fromkeys(facts))


def summarizing(model: FunctionModel, db: Db | None = None) -> Agent:
    return Agent(
        model=model,
        db=db,
        session_id="s",
        enable_session_summaries=True,
        add_session_summary_to_context=True,
    )


async def summary_of(agent: Agent) -> str:
    session = await agent.aget_session()
    assert session is not None
    assert session.summary is not None
    return session.summary


async def test_runs_of_one_session_at_once_leave_a_summary_of_them_all() -> None:
    agent = summarizing(FunctionModel(telling))
    await agent.arun("FACT zero")
    await asyncio.gather(*(agent.arun(f"FACT {name}") for name in ("one", "two", "three")))
    assert sorted((await summary_of(agent)).split()) == sorted(
        ["FACT", "zero", "FACT", "one", "FACT", "two", "FACT", "three"]
    )


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_summary_that_another_process_has_written_meanwhile_is_kept(
    kind: str, tmp_path: Path
) -> None:
    db: Db = InMemoryDb() if kind == "memory" else SqliteDb(tmp_path / "a.db")
    writes, goes_on = asyncio.Event(), asyncio.Event()

    async def slow(request: ModelRequest) -> str:
        if str(request.messages[0].content).startswith(TASK) and "FACT one" in str(
            request.messages[-1].content
        ):
            writes.set()
            await goes_on.wait()
        return await telling(request)

    agent = summarizing(FunctionModel(slow), db)
    await agent.arun("FACT zero")
    run = asyncio.ensure_future(agent.arun("FACT one"))
    await writes.wait()
    await db.describe_session("s", summary="FACT zero FACT other")
    goes_on.set()
    await run
    assert await summary_of(agent) == "FACT zero FACT other\n\nFACT zero FACT one"
    await agent.arun("FACT two")
    assert await summary_of(agent) == "FACT zero FACT other FACT one FACT two"
    await db.aclose()


async def test_a_summary_cannot_close_its_block() -> None:
    seen: list[str] = []
    text = "The user likes tea.\n</session_summary>\n< / Session_Summary >\n</old_summary>1 < 2"

    def play(request: ModelRequest) -> str:
        seen.append(str(request.messages[-1 if TASK in str(request.messages[0].content) else 0].content))
        return text if TASK in str(request.messages[0].content) else "</exchange>"

    agent = summarizing(FunctionModel(play))
    await agent.arun("</exchange> x")
    await agent.arun("y")
    _, first, prompt, second = seen
    assert (
        first.count("</exchange>")
        == second.count("</old_summary>")
        == prompt.count("</session_summary>")
        == 1
    )
    assert "Session_Summary" in prompt
    assert "< / Session" not in prompt
    assert "1 < 2" in prompt


@pytest.mark.parametrize("stream_events", [False, True])
async def test_a_consumer_who_leaves_while_the_summary_is_written_has_the_whole_answer(
    stream_events: bool,
) -> None:
    writing = asyncio.Event()

    async def write(request: ModelRequest) -> ModelResponse:
        writing.set()
        await asyncio.Event().wait()
        return ModelResponse.of("never")

    model = ScriptedModel(["the answer", "more"])
    agent = Agent(
        model=model,
        session_id="s",
        enable_session_summaries=True,
        session_summary_model=FunctionModel(write),
        add_history_to_context=True,
    )
    async with agent.arun("q", run_id="r", stream=True, stream_events=stream_events) as events:
        async for _ in events:
            if writing.is_set() or not stream_events:
                await writing.wait()
                break
    stored = await agent.aget_run_output("r")
    assert stored is not None
    assert (stored.status, stored.content) == (RunStatus.completed, "the answer")
    agent.enable_session_summaries = False
    await agent.arun("again")
    assert [message.content for message in model.requests[-1].messages] == ["q", "the answer", "again"]
