"""Rows of runs are data from outside: one that cannot be read is left out of the history, and said so."""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from kern import Agent
from kern.db.sqlite import SqliteDb
from kern.errors import StoreError
from kern.testing import ScriptedModel


@pytest.mark.parametrize(
    "damaged",
    [
        b"no JSON",
        b"[]",
        b'{"run_id": "r1"}',
        b'{"run_id": "r1", "session_id": "s", "status": "PONDERING"}',
        b'{"run_id": "r1", "session_id": "s", "status": "COMPLETED", "messages": [{"content": "no role"}]}',
        b'{"run_id": "r1", "session_id": "s", "status": "COMPLETED", "images": [{"urls": []}]}',
    ],
)
async def test_a_row_that_cannot_be_read_is_left_out_and_logged(
    damaged: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "kern.db"
    model = ScriptedModel(["one", "two", "three"])
    agent = Agent(model=model, db=SqliteDb(db_file=file), session_id="s", add_history_to_context=True)
    await agent.arun("first", run_id="r1")
    await agent.arun("second", run_id="r2")
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE kern_sessions_runs SET data = ? WHERE run_id = 'r1'", (damaged.decode(),))

    with caplog.at_level(logging.WARNING, logger="kern"):
        await agent.arun("third")
    assert [m.content for m in model.requests[-1].messages] == ["second", "two", "third"]
    assert any("'r1'" in record.getMessage() for record in caplog.records)

    assert [m.content for m in await agent.aget_chat_history()][:2] == ["second", "two"]
    with pytest.raises(StoreError, match="'r1'"):
        await agent.aget_run_output("r1")
