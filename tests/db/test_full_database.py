"""A database that is full from any call of a run on: a clear error, and with space again all goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kern import Agent, RunContext, tool
from kern.db import SqliteDb
from kern.durable import DbJournal
from kern.errors import StoreError
from kern.models.base import ModelRequest, ModelResponse
from kern.testing import FunctionModel, tool_call
from tests.interleaved import READS, WRITES, Interleaved

BIG = "x" * 100_000
"""Larger than the free parts of the pages that the file has already."""


class Desk:
    """An agent on a file, whose every step is large."""

    def __init__(self, path: Path, *, durable: bool) -> None:
        self.calls = 0
        self.db = SqliteDb(path)

        @tool(effect="idempotent")
        def work(run_context: RunContext) -> str:
            """Work."""
            self.calls += 1
            state = run_context.session_state
            state["count"] = state.get("count", 0) + 1
            state["big"] = f"{self.calls}{BIG}"
            return BIG

        self.agent = Agent(
            id="desk",
            model=FunctionModel(play),
            tools=[work],
            db=self.db,
            session_id="s",
            journal=DbJournal(self.db) if durable else None,
        )

    async def limit(self, pages: int) -> None:
        """Let the file have that many pages, or as many as it has already."""
        await self.db._read(lambda raw: raw.execute(f"PRAGMA max_page_count = {pages}").fetchall())

    async def told(self, **options: Any) -> str:
        """Run, and return the last event."""
        last = "none"
        async with self.agent.arun("go", stream=True, stream_events=True, run_id="r", **options) as events:
            async for event in events:
                last = event.event
        return last

    async def told_or_error(self) -> str:
        """Run, and return the last event, or what the error says."""
        try:
            return await self.told()
        except StoreError as error:
            return str(error)

    async def count(self) -> int:
        state: dict[str, Any] = await self.agent.aget_session_state()
        return int(state["count"])


def play(request: ModelRequest) -> ModelResponse | str:
    if request.messages[-1].role == "tool":
        return f"done {BIG}"
    return ModelResponse.of(f"I look. {BIG}", tool_call("work"))


@pytest.mark.parametrize("durable", [False, True])
async def test_a_run_ends_by_a_clear_error_and_is_repeated_with_space(durable: bool, tmp_path: Path) -> None:
    endings = []
    for number in range(40):
        desk = Desk(tmp_path / f"{number}.db", durable=durable)
        await desk.agent.arun("first")
        calls = Interleaved(desk.db, (*READS, *WRITES))
        calls.before(number, lambda desk=desk: desk.limit(1))
        last = await desk.told_or_error()
        stored = await desk.agent.aget_run_output("r")
        completed = stored is not None and stored.status.value == "COMPLETED"
        assert completed == (last == "RunCompleted")
        assert await desk.count() == 1 + completed
        if not completed:
            with pytest.raises(StoreError, match="the disk is full"):
                await desk.agent.aupdate_session_state({"more": BIG})
        await desk.limit(1_000_000)
        if not completed:
            again = "return" if durable else "raise"
            assert await desk.told(on_duplicate=again) == "RunCompleted"
        assert await desk.count() == 2
        assert await Desk(tmp_path / f"{number}.db", durable=durable).told(on_duplicate="return")
        assert [run.status.value for run in await desk.agent.alist_runs()] == ["COMPLETED"] * 2
        endings.append(last)
        await desk.db.aclose()
        if not calls.happened:
            break
    assert not calls.happened, "the database was full from each call on"
    failed = [ending for ending in endings if ending != "RunCompleted"]
    assert all("the disk is full" in ending for ending in failed)
    assert len(endings) > len(failed) > 3
