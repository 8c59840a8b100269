"""Odd things that are stored, or asked for, are told by errors of ours, and brick nothing."""

from __future__ import annotations

import json
import logging
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from kern import Agent, RunContext
from kern.db.sqlite import SqliteDb
from kern.errors import StoreError
from kern.testing import FunctionModel, tool_call


def add(run_context: RunContext) -> str:
    """Add one."""
    run_context.session_state.setdefault("items", []).append(1)
    return "added"


def agent_on(path: Path, seen: list[Any] | None = None) -> Agent:
    def play(request: Any) -> Any:
        if seen is not None:
            seen.append([message.content for message in request.messages])
        return "done" if request.messages[-1].role == "tool" else tool_call("add")

    return Agent(
        model=FunctionModel(play),
        tools=[add],
        db=SqliteDb(path),
        session_id="s",
        add_history_to_context=True,
        num_history_runs=10,
    )


DIGITS = "9" * 5000


@pytest.mark.parametrize("path", [DIGITS, f"items.{DIGITS}", f"/items/{DIGITS}", "items.0", "/a~b"])
async def test_a_path_of_thousands_of_digits_names_a_place_like_any_other(tmp_path: Path, path: str) -> None:
    agent = agent_on(tmp_path / "a.db")
    await agent.aupdate_session_state({DIGITS: {DIGITS: 1}})
    await agent.arun("go")
    history = await agent.asession_state_history(path=path)
    assert len(history) == (1 if path in (DIGITS, "items.0") else 0)


async def test_a_row_that_cannot_be_read_is_left_out_and_logged_and_is_an_error_for_who_asks_for_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, seen = tmp_path / "a.db", list[Any]()
    outputs = [await agent_on(path).arun(f"question {n}") for n in range(3)]
    with closing(sqlite3.connect(path)) as raw, raw:
        (data,) = raw.execute(
            "SELECT data FROM kern_sessions_runs WHERE run_id = ?", (outputs[1].run_id,)
        ).fetchone()
        newer = {
            **json.loads(data),
            "messages": [{"role": "user", "parts": [{"text": "of a newer Kern"}]}, 7],
        }
        raw.execute(
            "UPDATE kern_sessions_runs SET data = ? WHERE run_id = ?", (json.dumps(newer), outputs[1].run_id)
        )
    caplog.set_level(logging.WARNING, logger="kern")
    await agent_on(path, seen).arun("question 3")
    asked = [text for text in seen[0] if text and text.startswith("question")]
    assert asked == ["question 0", "question 2", "question 3"]
    (record,) = [record for record in caplog.records if record.name == "kern"]
    assert outputs[1].run_id in record.getMessage()
    with pytest.raises(StoreError, match=outputs[1].run_id):
        await agent_on(path).aget_run_output(outputs[1].run_id)
    assert len(await agent_on(path).aget_chat_history()) == 6


async def test_a_column_of_another_type_is_told_like_any_damage(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.db"
    output = await agent_on(path).arun("go")
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.execute("UPDATE kern_sessions_runs SET generation = 'x'")
    assert (await agent_on(path).arun("go")).content == "done"
    assert "a column holds 'x'" in caplog.text
    with pytest.raises(StoreError, match=f"run '{output.run_id}' is damaged"):
        await agent_on(path).aget_run_output(output.run_id)


@pytest.mark.parametrize("state", ["[]", "{", '{"a": NaN}', "", '{"a":' * 2000])
async def test_a_state_that_is_none_is_a_store_error(tmp_path: Path, state: str) -> None:
    path = tmp_path / "a.db"
    await agent_on(path).arun("go")
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.execute("UPDATE kern_sessions SET state = ?", (state,))
    with pytest.raises(StoreError, match="stored state of session 's' cannot be read"):
        await agent_on(path).arun("go")
    with pytest.raises(StoreError):
        await agent_on(path).aget_session_state()
    assert len(await agent_on(path).aget_chat_history()) == 2
    assert await agent_on(path).adelete_session()
    assert (await agent_on(path).arun("go")).session_state == {"items": [1]}


async def test_a_damaged_session_does_not_hide_the_others(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    await agent_on(path).arun("go")
    await agent_on(path).arun("go", session_id="t")
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.execute("UPDATE kern_sessions SET user_id = x'00' WHERE session_id = 's'")
    assert [row.session_id for row in await SqliteDb(path).list_sessions()] == ["t"]
    with pytest.raises(StoreError, match="session 's' is damaged"):
        await agent_on(path).arun("go")
