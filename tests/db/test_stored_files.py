"""A file that an earlier version has written opens, shows its history, and its paused run goes on."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from pathlib import Path

import pytest

from kern import Agent, RunStatus
from kern.db._sqlite_schema import MIGRATIONS
from kern.db.sqlite import SqliteDb
from kern.errors import StoreError
from kern.messages import ReasoningPart
from kern.run.output import TeamRunOutput
from kern.testing import FunctionModel
from tests.db.stored_files import PICTURE, painter, provider, shop, talker

STORED = sorted((Path(__file__).parent / "stored").glob("*.db"))


@pytest.fixture(params=STORED, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of a stored file."""
    copy = tmp_path / "agents.db"
    shutil.copy(request.param, copy)
    return copy


def reader(path: Path) -> Agent:
    return Agent(model=FunctionModel(lambda request: "read"), db=SqliteDb(path))


async def test_its_sessions_and_their_history_are_there(path: Path) -> None:
    agent = reader(path)
    rows = await SqliteDb(path).list_sessions()
    owners = {row.session_id: row.user_id for row in rows}
    assert owners.items() >= {"conversation": "ann", "media": "ann", "paused": None, "conflict": None}.items()
    assert await agent.aget_session_name("conversation") == "Bread"
    said = await agent.aget_chat_history("conversation", user_id="ann")
    assert [(message.role, message.content) for message in said] == [
        ("user", "Bread, please"),
        ("assistant", "It is on the list."),
        ("user", "More bread, please"),
        ("assistant", "It is on the list."),
    ]
    assert await agent.aget_session_state("conversation") == {"items": ["bread", "bread"]}
    (first, second) = await agent.asession_state_history("conversation", "items")
    assert (first.new, second.old, second.new) == (["bread"], ["bread"], ["bread", "bread"])
    assert second.tool == "add_item"
    assert await agent.aget_session_state("conversation", revision=1) == {"items": ["bread"]}


async def test_its_reasoning_items_and_media_go_back_to_the_provider(path: Path) -> None:
    async with provider() as url:
        output = await talker(SqliteDb(path), url, session_id="conversation", user_id="ann").arun("And jam")
        assert output.content == "It is on the list."
    messages = await reader(path).aget_session_messages("conversation", user_id="ann")
    kept = [message.provider_data for message in messages if message.provider_data]
    older = [item["type"] for data in kept for item in data["openai"]["items"]].count("reasoning")
    newer = [part for message in messages for part in message.parts if isinstance(part, ReasoningPart)]
    assert older + len([part for part in newer if part.redacted]) == 6
    (asked,) = [m for m in await reader(path).aget_session_messages("media", user_id="ann") if m.images]
    assert [image.url for image in asked.images] == [None, None, "https://example.org/b.png"]
    assert asked.images[0].read() == PICTURE


async def test_its_paused_runs_and_its_sessions_are_listed(path: Path) -> None:
    agent = reader(path)
    waiting = await agent.alist_runs(status="PAUSED")
    assert {run.session_id for run in waiting} >= {"paused"}
    assert {run.status for run in waiting} == {RunStatus.paused}
    every = await agent.alist_runs()
    assert {run.run_id for run in waiting} < {run.run_id for run in every}
    anns = await agent.alist_sessions(user_id="ann")
    assert {"conversation", "media"} <= {info.session_id for info in anns}
    assert {run.session_id for run in await agent.alist_runs(user_id="ann")} <= {
        info.session_id for info in anns
    }
    session = await agent.aget_session("conversation")
    assert session is not None
    assert session.state == {"items": ["bread", "bread"]}
    assert (await agent.aget_session_metrics("conversation")).requests > 0
    assert await agent.adelete_user("ann") == len(anns)
    assert await agent.alist_runs(user_id="ann") == []


async def test_its_paused_run_goes_on(path: Path) -> None:
    db = SqliteDb(path)
    (row,) = await db.load_runs("paused")
    paused = await reader(path).aget_run_output(row.run_id)
    assert paused is not None
    assert paused.status is RunStatus.paused
    (requirement,) = paused.requirements
    assert (requirement.tool_name, requirement.tool_args) == ("pay", {"amount": 5})
    requirement.confirm()
    output = await shop(db).acontinue_run(run_id=row.run_id, requirements=paused.requirements)
    assert isinstance(output, TeamRunOutput)
    assert output.status is RunStatus.completed
    assert output.content == "The shop says: milk is on the list; paid 5"
    assert output.session_state == {"items": ["milk"], "paid": 5}
    assert [member.agent_id for member in output.member_responses] == ["clerk", "buyer"]


async def test_the_pictures_of_a_paused_run_are_there_when_it_goes_on(path: Path) -> None:
    rows = await SqliteDb(path).load_runs("pictures")
    if not rows:
        pytest.skip("the file is older than pictures that are stored apart")
    paused = await reader(path).aget_run_output(rows[0].run_id)
    assert paused is not None
    paused.requirements[0].confirm()
    output = await painter(SqliteDb(path)).acontinue_run(
        run_id=paused.run_id, requirements=paused.requirements
    )
    assert (output.status, output.content) == (RunStatus.completed, "painted")
    assert [image.content for message in output.messages for image in message.images] == [PICTURE, PICTURE]
    assert [image.content for image in output.images] == [PICTURE]


async def test_its_conflict_is_told(path: Path) -> None:
    output = await reader(path).aget_last_run_output("conflict")
    assert output is not None
    conflict = {"path": "/name", "base": "", "theirs": "theirs", "ours": "ours"}
    assert conflict in output.state_conflicts
    history = await reader(path).asession_state_history("conflict", "name")
    assert [entry.new for entry in history] == ["theirs", "ours"]


async def test_a_file_of_a_later_version_is_refused_by_both_versions_numbers(path: Path) -> None:
    await SqliteDb(path).load_session("conversation")
    raw = sqlite3.connect(path)
    raw.execute("INSERT INTO kern_sessions_schema (version) VALUES (?)", (len(MIGRATIONS) + 1,))
    before = raw.execute("SELECT * FROM kern_sessions").fetchall()
    raw.commit()
    told = re.compile(rf"version {len(MIGRATIONS) + 1}.*newer Kern.*up to {len(MIGRATIONS)}\b.*update Kern")
    with pytest.raises(StoreError, match=told):
        await reader(path).aget_chat_history("conversation")
    with pytest.raises(StoreError, match=told) as raised:
        await reader(path).arun("hello", session_id="conversation", user_id="ann")
    assert json.dumps(raised.value.args)
    assert raw.execute("SELECT * FROM kern_sessions").fetchall() == before
    raw.close()
