"""Pictures and files of a conversation: what was sent is a part of it, whatever becomes of a file later."""

# ruff: noqa: ASYNC240  # the tests' own little files may be written on the loop

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kern import Agent, Message, Team, tool
from kern.db.base import Commit, Db, StateWrite
from kern.db.in_memory import InMemoryDb
from kern.db.sqlite import SqliteDb
from kern.errors import UsageError
from kern.messages import Audio, File, Image, Media
from kern.models.base import ModelRequest, ModelResponse
from kern.models.openai import OpenAIChat, OpenAIResponses
from kern.testing import FunctionModel, ModelServer, ScriptedModel, tool_call
from tests.databases import KINDS, opener

PNG = b"\x89PNG first"
HASH = hashlib.sha256(PNG).hexdigest()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "cat.png"
    path.write_bytes(PNG)
    return path


@pytest.fixture(params=KINDS)
def reopened(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Db]:
    """The database, as another object each time where that is possible."""
    return opener(request, tmp_path)


def talking(db: Db, model: Any, **options: Any) -> Agent:
    return Agent(model=model, db=db, session_id="s", add_history_to_context=True, **options)


def shown(request: ModelRequest) -> list[bytes | None]:
    return [media.content for message in request.messages for media in message.media]


@pytest.mark.parametrize("change", ["deleted", "overwritten", "a folder now"])
async def test_a_file_may_change_once_it_was_sent(
    reopened: Callable[[], Db], picture: Path, change: str
) -> None:
    model = ScriptedModel(["a cat", "still a cat", "a cat, as I said"])
    await talking(reopened(), model).arun("What is it?", images=[Image(filepath=picture)])
    picture.unlink()
    if change == "overwritten":
        picture.write_bytes(b"a dog")
    if change == "a folder now":
        picture.mkdir()
    for question in ("And now?", "And now?"):
        await talking(reopened(), model).arun(question)
    assert [shown(request) for request in model.requests] == [[PNG]] * 3
    assert {m.name for r in model.requests for message in r.messages for m in message.media} == {"cat.png"}


async def test_media_of_every_kind_and_way_come_back(reopened: Callable[[], Db], tmp_path: Path) -> None:
    paths = {kind: tmp_path / name for kind, name in ((Audio, "a.wav"), (File, "a.pdf"), (Image, "a.gif"))}
    for path in paths.values():
        path.write_bytes(path.name.encode())
    said = Message(
        "user", "see", images=[Image(filepath=str(paths[Image]), detail="low"), Image(url="http://x/a")]
    )
    model = ScriptedModel(["ok", "ok"])
    options: dict[str, Any] = {"audio": [Audio(filepath=paths[Audio])], "files": [File(filepath=paths[File])]}
    await talking(reopened(), model).arun(
        said, images=[Image(content=b"raw", mime_type="image/webp")], **options
    )
    for path in paths.values():
        path.unlink()
    await talking(reopened(), model).arun("again")
    first = model.requests[1].messages[0]
    assert [image.content for image in first.images] == [b"a.gif", None, b"raw"]
    assert (first.images[0].detail, first.images[1].url) == ("low", "http://x/a")
    assert [first.audio[0].content, first.files[0].content] == [b"a.wav", b"a.pdf"]
    assert said.images[0].filepath == str(paths[Image])  # the application's own is left alone


async def test_rows_hold_hashes_and_the_bytes_lie_once_in_a_table_of_their_own(
    tmp_path: Path, picture: Path
) -> None:
    agent = talking(SqliteDb(db_file=str(tmp_path / "kern.db")), ScriptedModel(["ok"] * 3))
    for given in (Image(filepath=picture), Image(content=PNG)):
        await agent.arun(Message("user", "see", images=[given]))
    await agent.arun("again")
    connection = sqlite3.connect(tmp_path / "kern.db")
    [table] = [n for (n,) in connection.execute("SELECT name FROM sqlite_master") if n.endswith("_media")]
    assert connection.execute(f"SELECT session_id, sha256, data FROM {table}").fetchall() == [
        ("s", HASH, PNG)
    ]
    runs = table.removesuffix("_media") + "_runs"
    for (data,) in connection.execute(f"SELECT data FROM {runs}"):
        assert base64.b64encode(PNG).decode() not in data
        assert str(picture) not in data
    assert await agent.adelete_session("s")
    assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)
    connection.close()


async def test_accessors_give_the_bytes_back(reopened: Callable[[], Db], picture: Path) -> None:
    agent = talking(reopened(), ScriptedModel(["ok"]))
    output = await agent.arun("see", images=[Image(filepath=picture)])
    picture.unlink()
    again = talking(reopened(), ScriptedModel([]))
    stored = await again.aget_run_output(output.run_id)
    assert stored is not None
    assert stored.messages[0].images == output.messages[0].images == [Image(content=PNG, name="cat.png")]
    assert (await again.aget_chat_history())[0].images[0].content == PNG


async def test_a_file_that_cannot_be_read_fails_the_run_before_anything_is_asked(picture: Path) -> None:
    model = ScriptedModel(["never", "ok"])
    agent = talking(InMemoryDb(), model)
    with pytest.raises(UsageError, match=r"the file .*gone\.png. of a message cannot be read"):
        await agent.arun("see", images=[Image(filepath=picture.parent / "gone.png")])
    assert model.requests == []
    await agent.arun("no picture this time")


async def test_what_tools_show_is_kept_too(reopened: Callable[[], Db], picture: Path) -> None:
    def look(where: str) -> Image:
        """Look."""
        return Image(filepath=where)

    def play(request: ModelRequest) -> Any:
        return "seen" if request.messages[-1].role == "tool" else tool_call("look", where=str(picture))

    model = FunctionModel(play)
    output = await talking(reopened(), model, tools=[look]).arun("look")
    picture.write_bytes(b"a dog")
    assert output.images == [Image(content=PNG, name="cat.png")]
    assert shown(model.requests[-1]) == [PNG]
    model = FunctionModel(lambda request: "ok")
    await talking(reopened(), model).arun("again")
    assert shown(model.requests[-1]) == [PNG]


async def test_a_tool_that_names_a_file_that_is_not_there_has_failed_and_the_run_goes_on() -> None:
    def look() -> Image:
        """Look."""
        return Image(filepath="/nonexistent/a.png")

    output = await Agent(model=ScriptedModel([tool_call("look"), "sorry"]), tools=[look]).arun("look")
    assert output.content == "sorry"
    assert output.tools[0].tool_call_error
    assert "a.png" in (output.tools[0].result or "")


async def test_a_paused_run_goes_on_with_its_pictures(reopened: Callable[[], Db], picture: Path) -> None:
    @tool(requires_confirmation=True)
    def erase() -> str:
        """Erase."""
        return "erased"

    def look() -> Image:
        """Look."""
        return Image(filepath=picture)

    def agent(model: Any) -> Agent:
        return talking(reopened(), model, tools=[erase, look])

    both = ModelResponse.of(None, tool_call("erase"), tool_call("look"))
    paused = await agent(ScriptedModel([both])).arun("see", images=[Image(filepath=picture)])
    picture.unlink()
    paused.requirements[0].confirm()
    model = ScriptedModel(["done"])
    output = await agent(model).acontinue_run(run_id=paused.run_id, requirements=paused.requirements)
    assert output.content == "done"
    assert shown(model.requests[0]) == [PNG, PNG]


@pytest.mark.parametrize("determine", [True, False])
async def test_members_see_the_pictures_of_the_input(picture: Path, determine: bool) -> None:
    member = ScriptedModel(["a cat"])
    task = {"task": "look"} if determine else {}
    leader = ScriptedModel([tool_call("delegate_task_to_member", member_id="eye", **task), "a cat"])
    team = Team([Agent(id="eye", model=member)], model=leader, determine_input_for_members=determine)
    await team.arun("see", images=[Image(filepath=picture)])
    assert shown(member.requests[0]) == shown(leader.requests[0]) == [PNG]


async def _rewrite(db: Db, change: Callable[[Any], Any]) -> None:
    """Change the stored run as an older version, or damage, would have it."""
    [row] = await db.load_runs("s")
    data = change(json.loads(row.data))
    changed = replace(row, data=json.dumps(data).encode(), generation=row.generation + 1)
    session = await db.load_session("s")
    assert session is not None
    await db.commit(
        Commit(
            session_id="s",
            user_id=session.user_id,
            resolve=lambda stored: StateWrite(None, session.revision),
            runs=[changed],
            now=1.0,
        )
    )


@pytest.mark.parametrize(
    ("media", "content", "words"),
    [
        ({"content": base64.b64encode(b"old").decode()}, b"old", None),
        ({"filepath": "{path}"}, None, "[image: cat.png]"),
        ({"sha256": "0" * 64, "name": "lost.png"}, None, "[image: lost.png]"),
    ],
    ids=["base64", "a path", "a hash of nothing"],
)
@pytest.mark.parametrize("kind", [OpenAIChat, OpenAIResponses])
async def test_rows_of_older_versions_and_lost_bytes_do_not_stop_a_session(
    reopened: Callable[[], Db],
    picture: Path,
    kind: Any,
    media: dict[str, str],
    content: bytes | None,
    words: str | None,
) -> None:
    await talking(reopened(), ScriptedModel(["ok"])).arun("see", images=[Image(filepath=picture)])

    def change(data: Any) -> Any:
        data["messages"][0]["images"] = [{k: v.replace("{path}", str(picture)) for k, v in media.items()}]
        return data

    await _rewrite(reopened(), change)
    async with ModelServer(["ok"]) as server:
        model = kind("m", base_url=server.base_url, api_key="any")
        assert (await talking(reopened(), model).arun("again")).content == "ok"
    first = server.requests[0].messages[0]
    assert [image.content for image in first.images] == ([content] if content else [])
    assert words is None or words in (first.content or "")


async def test_pictures_that_a_provider_makes_are_in_the_output_and_not_sent_again() -> None:
    made = {
        "type": "image_generation_call",
        "id": "ig_1",
        "status": "completed",
        "output_format": "webp",
        "result": base64.b64encode(PNG).decode(),
        "revised_prompt": "A cat.",
    }
    thought = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"}
    bodies: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        bodies.append((await reader.readexactly(length)).decode())
        said: dict[str, Any] = {"type": "message", "id": "msg_1", "role": "assistant"}
        said["content"] = [{"type": "output_text", "text": "Here."}]
        items = [thought, made, said] if len(bodies) == 1 else [said]
        data = json.dumps({"status": "completed", "output": items}).encode()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n")
        writer.write(b"content-length: %d\r\n\r\n%b" % (len(data), data))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        model = OpenAIResponses("gpt-5.2", base_url=f"http://127.0.0.1:{port}/v1", api_key="any")
        db = InMemoryDb()
        agent = talking(db, model, tools=[])
        output = await agent.arun("Draw a cat")
        assert output.images == [Image(content=PNG, mime_type="image/webp")]
        await agent.arun("Thank you")
    assert made["result"] not in bodies[1]
    assert "rs_1" not in bodies[1]  # it would need the item that it led to
    assert "A cat." in bodies[1]
    stored = await agent.aget_run_output(output.run_id)
    assert stored is not None
    assert stored.images == output.images


@pytest.mark.parametrize("kind", [OpenAIChat, OpenAIResponses])
async def test_a_session_in_which_another_model_drew_goes_on_with_this_one(
    reopened: Callable[[], Db], kind: Any
) -> None:
    drawn = Message("assistant", "Here.", images=[Image(content=PNG, mime_type="image/png")])
    output = await talking(reopened(), FunctionModel(lambda request: ModelResponse(replace(drawn)))).arun(
        "draw"
    )
    assert output.images == drawn.images
    async with ModelServer(["nice"]) as server:
        model = kind("m", base_url=server.base_url, api_key="any")
        await talking(reopened(), model).arun("What do you see?")
    assert [image.content for m in server.requests[0].messages for image in m.images] == [PNG]


def test_a_medium_reads_back_what_it_wrote() -> None:
    shelf: dict[str, bytes] = {}
    image = Image(content=PNG, name="cat.png", detail="low")
    data = image.to_dict(shelf)
    assert shelf == {HASH: PNG}
    assert data == {"name": "cat.png", "detail": "low", "sha256": HASH}
    again = Image.from_dict(data)
    assert (again.content, again.sha256) == (None, HASH)
    assert again.to_dict() == data
    assert Image.from_dict(image.to_dict()) == image


@pytest.mark.parametrize(
    "data",
    [
        {"content": 3},
        {"content": "not base64!"},
        {"url": ["x"]},
        {"sha256": {}},
        {"url": "http://x", "unknown": 1},
        {},
    ],
)
def test_damaged_media_are_an_error_of_a_known_kind(data: Any) -> None:
    with pytest.raises((ValueError, TypeError, UsageError)):
        Image.from_dict(data)


@pytest.mark.parametrize(
    "change",
    [
        {"role": "critic"},
        {"role": None},
        {"content": 3},
        {"content": ["x"]},
        {"commentary": {}},
        {"tool_calls": "x"},
        {"tool_calls": [{"id": 1, "name": "x"}]},
        {"tool_calls": [{"id": "1", "name": "x", "arguments": {}}]},
        {"provider_data": []},
        {"images": {}},
        {"tool_call_id": 7},
        {"from_history": "yes"},
    ],
)
def test_a_damaged_message_is_a_value_error(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"Message|ToolCall"):
        Message.from_dict({**Message("user", "x").to_dict(), **change})


def test_a_medium_without_bytes_says_so() -> None:
    for medium in (Image(sha256=HASH), Image(url="http://x")):
        assert isinstance(medium, Media)
        with pytest.raises(UsageError, match="no bytes"):
            medium.read()


def test_a_picture_is_not_printed_byte_by_byte() -> None:
    image = Image(content=b"x" * 1_000_000, name="cat.png")
    assert repr(image) == "Image(content=<1000000 bytes>, name='cat.png')"
    assert repr(Message("user", "see", images=[image])).endswith("name='cat.png')])")
