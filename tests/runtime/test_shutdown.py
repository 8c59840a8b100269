"""`await kern.shutdown()`: runs in flight end or are cancelled, and their ends are stored when it returns."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import kern
from kern import Agent, RunStatus
from kern.db import InMemoryDb, SqliteDb
from kern.errors import KernError, ShutdownError, UsageError
from kern.models.base import ModelRequest, ModelResponse
from kern.runtime import shutdown as module
from kern.testing import FunctionModel, ScriptedModel, no_leaks, tool_call


def echo(request: ModelRequest) -> str:
    return request.messages[-1].content or ""


class Work:
    """An agent whose tool stays until it is let go."""

    def __init__(self, **options: Any) -> None:
        self.began = threading.Event()
        self.go = threading.Event()
        self.db = InMemoryDb()
        call = ModelResponse.of(None, tool_call("work"))
        model = FunctionModel(lambda r: "done" if r.messages[-1].role == "tool" else call)
        self.agent = Agent(model=model, tools=[self.work], db=self.db, session_id="s", **options)

    async def work(self) -> str:
        self.began.set()
        while not self.go.is_set():
            await asyncio.sleep(0.005)
        return "worked"

    async def has_begun(self) -> None:
        assert await asyncio.to_thread(self.began.wait, 10)

    async def statuses(self) -> list[str]:
        return [row.status for row in await self.db.load_runs("s")]


async def test_runs_end_by_themselves_in_time() -> None:
    work = Work()
    async with no_leaks():
        run = asyncio.create_task(work.agent.arun("go"))
        await work.has_begun()
        ending = asyncio.create_task(kern.shutdown(timeout=10))
        await asyncio.sleep(0.05)
        assert not ending.done()
        work.go.set()
        await ending
        assert await work.statuses() == ["COMPLETED"]
        assert (await run).status is RunStatus.completed


@pytest.mark.parametrize("seconds", [0, 0.05])
async def test_those_that_do_not_are_cancelled_and_stored(seconds: float) -> None:
    work = Work()
    async with no_leaks():
        run = asyncio.create_task(work.agent.arun("go"))
        await work.has_begun()
        await kern.shutdown(timeout=seconds)
        assert await work.statuses() == ["CANCELLED"]
        assert (await run).status is RunStatus.cancelled


async def test_streams_that_were_dropped_and_queued_runs_are_included() -> None:
    work = Work(on_busy="queue")

    async def request() -> None:
        async for _ in work.agent.arun("go", stream=True):
            pass

    dropped = asyncio.create_task(request())
    await work.has_begun()
    queued = asyncio.create_task(work.agent.arun("later"))
    await asyncio.sleep(0.02)
    dropped.cancel()  # and nobody waits for it
    await kern.shutdown(timeout=0)
    assert sorted(await work.statuses()) == ["CANCELLED", "CANCELLED"]
    assert (await queued).status is RunStatus.cancelled
    await asyncio.wait([dropped])


async def test_no_new_run_begins_meanwhile_and_one_does_afterwards() -> None:
    work = Work()
    run = asyncio.create_task(work.agent.arun("go"))
    await work.has_begun()
    endings = [asyncio.create_task(kern.shutdown(timeout=20)) for _ in range(2)]
    await asyncio.sleep(0.02)
    with pytest.raises(ShutdownError, match="no new run can start"):
        await work.agent.arun("another")
    with pytest.raises(KernError):
        async for _ in work.agent.arun("another", stream=True):
            pass
    work.go.set()
    await asyncio.gather(*endings, run)
    await kern.shutdown()
    assert (await Agent(model=ScriptedModel(["hi"])).arun("go")).content == "hi"


async def test_runs_inside_of_runs_go_on() -> None:
    inner = Agent(model=ScriptedModel(["inner answer"]))
    began, go = asyncio.Event(), asyncio.Event()

    async def ask() -> str:
        began.set()
        await go.wait()
        return str((await inner.arun("go")).content)

    agent = Agent(
        model=ScriptedModel([tool_call("ask"), lambda r: r.messages[-1].content or ""]), tools=[ask]
    )
    run = asyncio.create_task(agent.arun("go"))
    await began.wait()
    ending = asyncio.create_task(kern.shutdown())
    await asyncio.sleep(0.02)
    go.set()
    await ending
    assert (await run).content == "inner answer"


@pytest.mark.parametrize("where", ["the portal", "a loop in a thread"])
async def test_runs_of_other_loops_are_included(where: str) -> None:
    work = Work()

    def in_thread() -> None:
        if where == "the portal":
            work.agent.run("go")
        else:
            asyncio.run(work.agent.arun("go"))

    thread = threading.Thread(target=in_thread)
    thread.start()
    await work.has_begun()
    await kern.shutdown(timeout=0)
    assert await work.statuses() == ["CANCELLED"]
    await asyncio.to_thread(thread.join)


async def test_it_refuses_to_wait_for_itself() -> None:
    async def end() -> str:
        await kern.shutdown()
        return "ended"

    agent = Agent(
        model=ScriptedModel([tool_call("end"), lambda r: r.messages[-1].content or ""]), tools=[end]
    )
    output = await agent.arun("go")
    assert UsageError.__name__ in output.content


async def test_a_run_that_never_ends_is_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "END_SECONDS", 0.1)
    release, began = asyncio.Event(), asyncio.Event()

    async def deaf() -> str:
        began.set()
        while not release.is_set():
            with suppress(asyncio.CancelledError):
                await release.wait()
        return ""

    agent = Agent(model=ScriptedModel([tool_call("deaf")]), tools=[deaf])
    run = asyncio.create_task(agent.arun("go", run_id="deaf one"))
    await began.wait()
    await kern.shutdown(timeout=0)
    assert "run deaf one had not ended" in caplog.text
    release.set()
    await run


SERVER = """
    import asyncio, socket, sys
    import uvicorn
    from contextlib import asynccontextmanager
    from fastapi import FastAPI
    from fastapi.responses import StreamingResponse
    import kern
    from kern import Agent
    from kern.db import SqliteDb
    from kern.testing import FunctionModel, tool_call

    async def work() -> str:
        print("began", flush=True)
        await asyncio.sleep(60)
        return "worked"

    @asynccontextmanager
    async def lifespan(app):
        yield
        await kern.shutdown(timeout=0.1)

    model = FunctionModel(lambda r: tool_call("work"))
    agent = Agent(model=model, tools=[work], db=SqliteDb(sys.argv[1]), session_id="s")
    app = FastAPI(lifespan=lifespan)

    @app.get("/")
    async def ask():
        async def body():
            async for event in agent.arun("go", stream=True, stream_events=True):
                yield event.event + "\\n"
        return StreamingResponse(body())

    config = uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1)
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(sys.argv[2]))])
"""


def test_a_real_server_that_is_told_to_end_leaves_a_row(tmp_path: Path) -> None:
    pytest.importorskip("uvicorn")
    file = tmp_path / "a.db"
    with socket.create_server(("127.0.0.1", 0)) as listener:  # no one else can take its port meanwhile
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(SERVER), str(file), str(listener.fileno())],
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=[listener.fileno()],
        )
        client = socket.create_connection(listener.getsockname())  # the server accepts it later
    try:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert process.stdout is not None
        assert process.stdout.readline() == "began\n"
        os.kill(process.pid, signal.SIGTERM)
        process.wait(20)
        client.close()
    finally:
        process.kill()
        process.communicate()

    async def statuses() -> list[str]:
        return [row.status for row in await SqliteDb(file).load_runs("s")]

    assert asyncio.run(statuses()) == ["CANCELLED"]
