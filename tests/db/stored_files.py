"""What the files in `stored/` hold, and how each was made: one more after every change of what rows hold.

    python -m tests.db.stored_files tests/db/stored/NAME.db

run in a work tree of the Kern whose rows are to be kept. The agents are made with what every version has,
since the tests go on with them where the file stopped.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from kern import Agent, RunContext, Team, tool
from kern.db.sqlite import SqliteDb
from kern.messages import File, Image
from kern.models.base import ModelRequest, ModelResponse
from kern.models.openai import OpenAIResponses
from kern.run.output import RunOutput, TeamRunOutput
from kern.testing import FunctionModel, tool_call
from tests import processes

PICTURE = bytes.fromhex("89504e470d0a1a0a") + bytes(range(256))


def add_item(run_context: RunContext, item: str) -> str:
    """Put an item on the list."""
    run_context.session_state.setdefault("items", []).append(item)
    return f"{item} is on the list"


@tool(requires_confirmation=True)
def pay(run_context: RunContext, amount: int) -> str:
    """Pay, once a person has said yes."""
    run_context.session_state["paid"] = run_context.session_state.get("paid", 0) + amount
    return f"paid {amount}"


def draw() -> list[Any]:
    """Draw a picture."""
    return ["drawn", Image(content=PICTURE, name="drawn.png")]


def painter(db: SqliteDb) -> Agent:
    """An agent that draws a picture, and then has to ask a person; files from 0.2 on have its run."""

    def paint(request: ModelRequest) -> Any:
        told = [message for message in request.messages if message.role == "tool"]
        return "painted" if len(told) == 2 else tool_call("pay", amount=7) if told else tool_call("draw")

    return Agent(
        name="Painter",
        id="painter",
        model=FunctionModel(paint),
        tools=[draw, pay],
        db=db,
        session_id="pictures",
    )


def _told(request: ModelRequest) -> str | None:
    last = request.messages[-1]
    return last.content if last.role == "tool" else None


def shop(db: SqliteDb) -> Team:
    """A team whose leader asks a clerk, who is done at once, and a buyer, who has to ask a person."""

    def lead(request: ModelRequest) -> ModelResponse:
        told = [message.content for message in request.messages if message.role == "tool"]
        if told:
            return ModelResponse.of(f"The shop says: {'; '.join(map(str, told))}")
        names = ("clerk", "buyer")
        calls = [tool_call("delegate_task_to_member", member_id=name, task="work") for name in names]
        return ModelResponse.of(None, *calls)

    def clerk(request: ModelRequest) -> Any:
        return _told(request) or tool_call("add_item", item="milk")

    def buyer(request: ModelRequest) -> Any:
        return _told(request) or tool_call("pay", amount=5)

    members = [
        Agent(name="Clerk", id="clerk", model=FunctionModel(clerk), tools=[add_item]),
        Agent(name="Buyer", id="buyer", model=FunctionModel(buyer), tools=[pay]),
    ]
    return Team(
        name="Shop", id="shop", members=members, model=FunctionModel(lead), db=db, session_id="paused"
    )


def talker(db: SqliteDb, url: str, **options: Any) -> Agent:
    """An agent on OpenAI's protocol, whose answers carry reasoning items."""
    model = OpenAIResponses("gpt-5.2", base_url=url, api_key="any-key", max_retries=0)
    return Agent(
        name="Talker",
        id="talker",
        model=model,
        tools=[add_item],
        db=db,
        add_history_to_context=True,
        **options,
    )


def _answer(asked: dict[str, Any]) -> list[dict[str, Any]]:
    """The items of an answer: reasoning and a call first, then reasoning, a search and a text."""
    number = len(asked["input"])
    reasoning = {
        "type": "reasoning",
        "id": f"rs_{number}",
        "summary": [{"type": "summary_text", "text": "I think."}],
        "encrypted_content": f"gAAAA{number}",
    }
    if asked["input"][-1].get("type") == "function_call_output":
        search = {"type": "web_search_call", "id": f"ws_{number}", "status": "completed"}
        text = {"type": "output_text", "text": "It is on the list.", "annotations": []}
        message = {"type": "message", "id": f"msg_{number}", "role": "assistant", "content": [text]}
        return [reasoning, search, message]
    call = {"call_id": f"call_{number}", "name": "add_item", "arguments": '{"item": "bread"}'}
    return [reasoning, {"type": "function_call", "id": f"fc_{number}", **call}]


@asynccontextmanager
async def provider() -> AsyncIterator[str]:
    """A server of the Responses protocol that gives out reasoning items; its base URL."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        asked = json.loads(await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0])))
        usage = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
        answer = {"id": "resp_1", "status": "completed", "output": _answer(asked), "usage": usage}
        data = json.dumps(answer).encode()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n")
        writer.write(b"content-length: %d\r\n\r\n%b" % (len(data), data))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


async def make(path: Path) -> None:
    """Write the file."""
    db = SqliteDb(path)
    await _conversation(db)
    paused = await shop(db).arun("Buy milk and pay for it")
    assert paused.status.value == "PAUSED"
    await _conflict(db, path)
    sketch = Path("sketch.png")
    sketch.write_bytes(PICTURE)  # noqa: ASYNC240
    await painter(db).arun("Paint this", images=[Image(filepath=sketch)])
    await db.aclose()


async def _conversation(db: SqliteDb) -> None:
    async with provider() as url:
        agent = talker(db, url, session_id="conversation", user_id="ann")
        for question in ("Bread, please", "More bread, please"):
            await agent.arun(question)
        await agent.aset_session_name("Bread")
        by_path = Path("gone.png")  # in a folder of its own, which goes when the file is made
        by_path.write_bytes(PICTURE)  # noqa: ASYNC240
        media = talker(db, url, session_id="media", user_id="ann")
        pictures = [Image(content=PICTURE, name="a.png"), Image(filepath=by_path)]
        await media.arun("What is this?", images=[*pictures, Image(url="https://example.org/b.png")])
        await media.arun("And this?", files=[File(content=b"%PDF-1.4", name="c.pdf")])


OTHER = """
    import sys
    from kern import Agent
    from kern.db.sqlite import SqliteDb
    from kern.testing import FunctionModel

    Agent(model=FunctionModel(lambda r: ""), db=SqliteDb(sys.argv[1])).update_session_state(
        {"name": "theirs"}, "conflict")
"""


async def _conflict(db: SqliteDb, path: Path) -> None:
    """Two processes write one value of one session."""

    def write(run_context: RunContext) -> str:
        run_context.session_state["name"] = "ours"
        processes.run(OTHER, path)
        return "written"

    def play(request: ModelRequest) -> Any:
        return _told(request) or tool_call("write")

    agent = Agent(
        name="Writer",
        id="writer",
        model=FunctionModel(play),
        tools=[write],
        db=db,
        session_id="conflict",
        session_state={"name": "", "count": 1},
    )
    output: RunOutput | TeamRunOutput = await agent.arun("first", session_state={"count": 2})
    assert output.state_conflicts


def checkpointed(path: Path) -> None:
    """One plain file: no log beside it, and as small as it can be."""
    raw = sqlite3.connect(path, isolation_level=None)
    raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    raw.execute("PRAGMA journal_mode = DELETE")
    raw.execute("VACUUM")
    raw.close()


if __name__ == "__main__":
    target = Path(sys.argv[1]).resolve()
    target.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        asyncio.run(make(target))
        os.chdir(target.parent)
    checkpointed(target)
