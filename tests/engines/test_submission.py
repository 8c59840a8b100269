"""A run that is handed to a worker takes what a run takes, and is refused before anything is written."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import Any

import pydantic
import pytest

from kern import Agent, RunStatus
from kern.db import SqliteDb
from kern.durable import DbJournal, Submission
from kern.engines import Worker, submission, submit
from kern.errors import InputCheckError, KernError, RunMismatch, SessionOwnershipError, StoreError, UsageError
from kern.messages import Audio, File, Image, Message
from kern.models.base import ModelRequest
from kern.testing import FunctionModel, ScriptedModel
from tests.engines.test_worker import ended, working

PIXEL = b"\x89PNG\r\n\x1a\n one pixel"


class Movie(pydantic.BaseModel):
    title: str
    year: int


def agent_on(path: Path, *answers: Any, **more: Any) -> Agent:
    db = SqliteDb(path / "kern.db")
    return Agent(id="desk", model=ScriptedModel(list(answers)), db=db, journal=DbJournal(db), **more)


async def worked(agent: Agent, run: Submission) -> Message:
    """What the model was asked last, once a worker has done the run."""
    assert await submit(agent, run)
    async with working(Worker(agent, poll_seconds=0.02)):
        assert await ended(agent, run.run_id) is RunStatus.completed
    assert isinstance(agent.model, ScriptedModel)
    return agent.model.requests[-1].messages[-1]


async def test_a_worker_sends_the_pictures_sound_and_files_of_the_run(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_bytes(b"a note")
    agent = agent_on(tmp_path, "seen")
    run = submission(
        agent,
        "Look",
        session_id="s",
        images=[Image(content=PIXEL, mime_type="image/png"), Image(url="https://example.com/a.png")],
        audio=[Audio(content=b"beep")],
        files=[File(filepath=tmp_path / "note.txt")],
    )
    asked = await worked(agent, run)
    assert asked.content == "Look"
    assert [image.content for image in asked.images] == [PIXEL, None]
    assert [audio.content for audio in asked.audio] == [b"beep"]
    assert [(file.content, file.name) for file in asked.files] == [(b"a note", "note.txt")]


@pytest.mark.parametrize("several", [False, True])
async def test_a_worker_gets_messages_with_their_media(tmp_path: Path, several: bool) -> None:
    agent = agent_on(tmp_path, "seen")
    message = Message("user", "Look", images=[Image(content=PIXEL)])
    given = [{"role": "user", "content": "Before."}, message] if several else message
    run = submission(agent, given, session_id="s", run_id="r")
    asked = await worked(agent, run)
    assert asked.content == "Look"
    assert [image.content for image in asked.images] == [PIXEL]
    assert not await submit(agent, submission(agent, given, session_id="s", run_id="r")), "the same run"


async def test_a_class_for_the_answer_reaches_the_worker_as_its_schema(tmp_path: Path) -> None:
    agent = agent_on(tmp_path, '{"title": "Alien", "year": 1979}')
    run = submission(agent, "Which?", session_id="s", output_schema=Movie)
    await worked(agent, run)
    output = await agent.aget_run_output(run.run_id)
    assert output is not None
    assert output.content == {"title": "Alien", "year": 1979}


async def test_an_answer_of_another_form_is_asked_for_again(tmp_path: Path) -> None:
    agent = agent_on(tmp_path, '{"title": "Alien"}', '{"title": "Alien", "year": 1979}')
    asked = await worked(agent, submission(agent, "Which?", session_id="s", output_schema=Movie))
    assert "year" in str(asked.content)


def nested(depth: int) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = [value]
    return value


def circle() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    "asked",
    [
        {"input": nested(220)},
        {"input": {"a": nested(5_000)}},
        {"input": circle()},
        {"input": {"a": object()}},
        {"input": ""},
        {"metadata": {"a": nested(220)}},
        {"dependencies": {"client": object()}},
        {"session_state": {"a": nested(5_000)}},
        {"output_schema": {"type": "object", "properties": {}, "default": nested(220)}},
        {"output_schema": str},
        {"images": ["a.png"]},
        {"timeout": "soon"},
    ],
)
def test_what_no_process_could_read_again_is_refused(tmp_path: Path, asked: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        submission(agent_on(tmp_path), **{"input": "go", "session_id": "s", **asked})
    assert not (tmp_path / "kern.db").exists()


async def test_what_can_be_just_read_again_is_done(tmp_path: Path) -> None:
    agent = agent_on(tmp_path, "done")
    await worked(agent, submission(agent, nested(150), session_id="s", metadata={"half": "\ud83d"}))


def test_an_input_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputCheckError, match="year"):
        submission(agent_on(tmp_path, input_schema=Movie), {"title": "Alien"}, session_id="s")


async def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    agent = agent_on(tmp_path)
    run = submission(agent, "Look", session_id="s", files=[File(filepath=tmp_path / "nothing")])
    with pytest.raises(UsageError, match=r"the file .* cannot be read"):
        await submit(agent, run)
    assert await DbJournal(SqliteDb(tmp_path / "kern.db")).unfinished() == []


@pytest.mark.parametrize("state", ["submitted", "begun", "ended"])
@pytest.mark.parametrize(
    ("other", "error"),
    [
        ({"input": "another"}, RunMismatch),
        ({"images": [Image(content=b"another")]}, RunMismatch),
        ({"session_id": "another"}, RunMismatch),
        ({"user_id": "eve"}, SessionOwnershipError),
    ],
    ids=["input", "media", "session", "user"],
)
async def test_a_known_id_stands_for_one_request(
    tmp_path: Path, state: str, other: dict[str, Any], error: type[KernError]
) -> None:
    agent = agent_on(tmp_path, "done")
    asked: dict[str, Any] = {
        "input": "go",
        "session_id": "s",
        "user_id": "u",
        "run_id": "r",
        "images": [Image(content=PIXEL)],
    }
    run = submission(agent, **asked)
    if state == "ended":
        await worked(agent, run)
    else:
        assert await submit(agent, run)
    if state == "begun":
        assert await DbJournal(SqliteDb(tmp_path / "kern.db")).take(["desk"]) is not None
    with pytest.raises(error):
        await submit(agent, submission(agent, **{**asked, **other}))
    assert not await submit(agent, run)
    if state != "begun":
        with pytest.raises(error):
            changed = {**asked, **other}
            await agent.arun(changed.pop("input"), **changed)


async def test_a_submitted_run_whose_input_is_damaged_is_left(tmp_path: Path) -> None:
    run = submission(agent_on(tmp_path), "go", session_id="s")
    for damage in ({"messages": [{"role": 7}]}, {"media": {"pictures": [{}]}}, {"media": {"images": [{}]}}):
        damaged = Submission.from_dict({**run.to_dict(), **damage})
        with pytest.raises(StoreError, match=run.run_id):
            damaged.asked()
        with pytest.raises(StoreError):
            await asyncio.wait_for(damaged.with_files(), 5)


@pytest.mark.parametrize(
    "refused",
    [
        {"session_id": ""},
        {"run_id": ""},
        {"run_id": "r\ud800"},
        {"user_id": "a\0b"},
        {"timeout": -1},
    ],
)
def test_ids_and_times_that_a_run_refuses_are_refused_before_anything_is_written(
    tmp_path: Path, refused: dict[str, Any]
) -> None:
    agent = agent_on(tmp_path, "done")
    with pytest.raises(UsageError):
        submission(agent, "go", **{"session_id": "s", **refused})


async def test_a_run_is_not_submitted_to_the_session_of_another_user(tmp_path: Path) -> None:
    agent = agent_on(tmp_path, "done")
    assert await submit(agent, submission(agent, "go", session_id="s", run_id="r", user_id="ann"))
    with pytest.raises(SessionOwnershipError):
        await submit(agent, submission(agent, "go", session_id="s", run_id="bobs", user_id="bob"))


@pytest.mark.parametrize(
    ("other", "error"),
    [
        ({"input": "another"}, RunMismatch),
        ({"images": [Image(content=b"another")]}, RunMismatch),
        ({"session_id": "another"}, RunMismatch),
        ({"user_id": "bob"}, SessionOwnershipError),
    ],
)
async def test_a_run_that_goes_on_and_was_not_submitted_stands_for_its_request_alone(
    tmp_path: Path, other: dict[str, Any], error: type[KernError]
) -> None:
    asked, answered = asyncio.Event(), asyncio.Event()

    async def answer(request: ModelRequest) -> str:
        asked.set()
        await answered.wait()
        return "done"

    def desk() -> Agent:
        db = SqliteDb(tmp_path / "kern.db")
        return Agent(id="desk", model=FunctionModel(answer), db=db, journal=DbJournal(db))

    given: dict[str, Any] = {"input": "go", "session_id": "s", "run_id": "r", "user_id": "ann"}
    given["images"] = [Image(content=PIXEL)]
    handle = await desk().astart(given.pop("input"), **given)
    await asked.wait()
    given["input"] = "go"
    assert not await submit(desk(), submission(desk(), **given)), "it is being done"
    with pytest.raises(error):
        await submit(desk(), submission(desk(), **{**given, **other}))
    answered.set()
    assert (await handle.result()).content == "done"


@pytest.mark.parametrize("name", ["dependencies", "metadata", "session_state"])
@pytest.mark.parametrize(
    ("value", "why"),
    [
        (pydantic.SecretStr("real"), "a SecretStr is not JSON"),
        (Movie(title="Heat", year=1995), "a Movie is not JSON"),
        (math.nan, "nan is not a number in JSON"),
        ({1: "a", "1": "b"}, "the key 1 is not a str"),
        ([{1, 2}], "a set is not JSON"),
    ],
)
def test_what_would_reach_the_worker_changed_is_refused(
    tmp_path: Path, name: str, value: Any, why: str
) -> None:
    with pytest.raises(UsageError, match=f"{name}/v.*: {why}"):
        submission(agent_on(tmp_path), "x", session_id="s", **{name: {"v": value}})
