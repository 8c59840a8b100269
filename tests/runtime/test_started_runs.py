"""A run that a tool starts ends with its caller, however it is started and however that is cut short."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from kern import Agent, RunContext, RunStatus, Team, tool
from kern.db import InMemoryDb
from kern.errors import KernError, RunDeadlineExceeded
from kern.models.base import ModelRequest, ModelResponse
from kern.runtime.active_runs import active_runs
from kern.testing import FunctionModel, no_leaks, tool_call
from tests.clock import LONG, pass_time


class Scene:
    """An inner agent that works in steps and would never end, and tools that run it in every way."""

    def __init__(self) -> None:
        self.db = InMemoryDb()
        self.steps = 0
        self.began = threading.Event()
        self.inner = Agent(model=FunctionModel(self.play), tools=[self.act], db=self.db, session_id="inner")
        self.background: list[asyncio.Task[Any]] = []

    async def play(self, request: ModelRequest) -> ModelResponse:
        await asyncio.sleep(0.01)
        return ModelResponse.of(None, tool_call("act"))

    def act(self) -> str:
        self.steps += 1
        self.began.set()
        return "acted"

    # The ways to run it.

    async def awaited(self) -> str:
        return str((await self.inner.arun("go")).content)

    async def awaited_with_context(self, run_context: RunContext) -> str:
        return str((await self.inner.arun("go")).content)

    def sync(self) -> str:
        return str(self.inner.run("go").content)

    def sync_with_context(self, run_context: RunContext) -> str:
        return str(self.inner.run("go").content)

    def sync_stream(self) -> str:
        return str(list(self.inner.run("go", stream=True)))

    async def stream(self) -> str:
        return str([event async for event in self.inner.arun("go", stream=True)])

    async def in_a_task(self) -> str:
        return str((await asyncio.create_task(self.inner.arun("go"))).content)

    async def shielded(self) -> str:
        return str((await asyncio.shield(asyncio.create_task(self.inner.arun("go")))).content)

    async def in_a_thread(self) -> str:
        return str((await asyncio.to_thread(self.inner.run, "go")).content)

    async def gathered(self) -> str:
        return str(await asyncio.gather(*(self.inner.arun("go") for _ in range(3))))

    def again_and_again(self) -> str:
        while True:
            with suppress(Exception):
                self.inner.run("go")
            time.sleep(0.01)
            if not self.going_on():
                return "gave up"

    async def in_a_thread_of_its_own(self) -> str:
        context, done = contextvars.copy_context(), asyncio.Event()
        loop = asyncio.get_running_loop()

        def body() -> None:
            with suppress(BaseException):
                context.run(self.inner.run, "go")
            loop.call_soon_threadsafe(done.set)

        threading.Thread(target=body).start()
        await done.wait()
        return "done"

    def going_on(self) -> int:
        return sum(run.request.session_id == "inner" for run in active_runs)

    def caller(self, way: Callable[..., Any], **options: Any) -> Agent:
        name = options.pop("name", way.__name__)
        timeout = options.pop("tool_timeout", None)
        model = FunctionModel(
            lambda r: (
                r.messages[-1].content or "done"
                if r.messages[-1].role == "tool"
                else ModelResponse.of(None, tool_call(name))
            )
        )
        function = tool(timeout=timeout)(way) if timeout else way
        return Agent(model=model, tools=[function], db=self.db, **options)

    async def has_begun(self) -> None:
        assert await asyncio.to_thread(self.began.wait, 10)

    @asynccontextmanager
    async def late_once_it_has_begun(self) -> AsyncIterator[None]:
        """In the block, deadlines pass once the inner run is at work."""

        async def late() -> None:
            await self.has_begun()
            pass_time()

        passing = asyncio.create_task(late())
        yield
        await passing

    async def assert_over(self) -> None:
        """Nothing goes on, and every end is stored."""
        assert self.going_on() == 0
        rows = await self.db.load_runs("inner")
        assert rows
        assert {row.status for row in rows} == {"CANCELLED"}
        await asyncio.sleep(0.03)  # threads that were at it
        steps = self.steps
        await asyncio.sleep(0.03)
        assert self.steps == steps


WAYS = [
    "awaited",
    "awaited_with_context",
    "sync",
    "sync_with_context",
    "sync_stream",
    "stream",
    "in_a_task",
    "shielded",
    "in_a_thread",
    "in_a_thread_of_its_own",
    "gathered",
    "again_and_again",
]


async def by_cancel(scene: Scene, way: Any) -> None:
    run = asyncio.create_task(scene.caller(way).arun("go"))
    await scene.has_begun()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run


async def by_cancel_run(scene: Scene, way: Any) -> None:
    agent = scene.caller(way)
    run = asyncio.create_task(agent.arun("go", run_id="r"))
    await scene.has_begun()
    assert agent.cancel_run("r")
    assert (await run).status is RunStatus.cancelled


async def by_tool_timeout(scene: Scene, way: Any) -> None:
    async with scene.late_once_it_has_begun():
        output = await scene.caller(way, tool_timeout=LONG).arun("go")
    assert f"took longer than its timeout of {LONG:g} s" in output.content


async def by_run_timeout(scene: Scene, way: Any) -> None:
    async with scene.late_once_it_has_begun():
        with pytest.raises(RunDeadlineExceeded):
            await scene.caller(way, timeout=LONG).arun("go")


async def by_leaving_the_stream(scene: Scene, way: Any) -> None:
    async with scene.caller(way).arun("go", stream=True, stream_events=True) as events:
        async for event in events:
            if event.event == "ToolCallStarted":
                await scene.has_begun()
                break


async def by_member_timeout(scene: Scene, way: Any) -> None:
    delegation = ModelResponse.of(None, tool_call("delegate_task_to_member", member_id="m", task="x"))
    lead = FunctionModel(lambda r: "told" if r.messages[-1].role == "tool" else delegation)
    member = scene.caller(way)
    member.name, member.id = "m", "m"
    async with scene.late_once_it_has_begun():
        assert (await Team([member], model=lead, member_timeout=LONG).arun("go")).content == "told"


ENDS: list[Callable[[Scene, Any], Awaitable[None]]] = [
    by_cancel,
    by_cancel_run,
    by_tool_timeout,
    by_run_timeout,
    by_leaving_the_stream,
    by_member_timeout,
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
async def test_a_run_that_a_tool_starts_ends_with_its_caller(way: str, end: Any) -> None:
    scene = Scene()
    async with no_leaks():
        await end(scene, getattr(scene, way))
        await scene.assert_over()


@pytest.mark.parametrize("way", ["sync", "sync_stream", "again_and_again"])
def test_a_sync_caller_that_times_out_takes_them_along(way: str) -> None:
    scene = Scene()
    with pytest.raises(RunDeadlineExceeded):
        scene.caller(getattr(scene, way), timeout=0.1).run("go")
    assert scene.going_on() == 0


async def test_the_inner_end_is_stored_before_the_outer_one() -> None:
    scene = Scene()
    ended: list[str] = []

    class Noting(InMemoryDb):
        async def commit(self, commit: Any) -> Any:
            ended.extend(run.session_id for run in commit.runs)
            return await super().commit(commit)

    scene.inner.db = scene.db = Noting()
    agent = scene.caller(scene.sync, session_id="outer")
    run = asyncio.create_task(agent.arun("go"))
    await scene.has_begun()
    run.cancel()
    await asyncio.wait([run])
    assert ended == ["inner", "outer"]


async def test_a_call_that_fails_takes_along_what_it_has_started() -> None:
    scene = Scene()

    async def fails() -> str:
        scene.background.append(asyncio.create_task(scene.inner.arun("go")))
        await scene.has_begun()
        raise LookupError("no")

    output = await scene.caller(fails).arun("go")
    assert output.content == "LookupError: no"
    await scene.assert_over()


@pytest.mark.parametrize("deep", [False, True])
async def test_a_run_left_behind_by_a_call_that_returned_belongs_to_the_caller_s_run(deep: bool) -> None:
    scene = Scene()

    async def leaves() -> str:
        scene.background.append(asyncio.create_task(scene.inner.arun("go")))
        await scene.has_begun()
        return "started"

    middle = scene.caller(leaves)

    async def through_another() -> str:
        return str((await middle.arun("go")).content)

    going_on = asyncio.Event()

    async def stay(*_: Any) -> None:
        going_on.set()
        await asyncio.sleep(20)

    agent = scene.caller(through_another if deep else leaves, post_hooks=[stay])
    run = asyncio.create_task(agent.arun("go"))
    await going_on.wait()
    steps = scene.steps
    while scene.steps < steps + 3:
        await asyncio.sleep(0.01)  # it is left alone as long as the caller's run goes on
    run.cancel()
    await asyncio.wait([run])
    await scene.assert_over()


@pytest.mark.parametrize("end", ["COMPLETED", "PAUSED"])
async def test_after_a_run_that_completes_or_pauses_it_goes_on(end: str) -> None:
    scene = Scene()

    @tool(requires_confirmation=True)
    def wipe() -> str:
        return "wiped"

    async def leaves() -> str:
        scene.background.append(asyncio.create_task(scene.inner.arun("go")))
        return "started"

    def play(request: ModelRequest) -> ModelResponse | str:
        if request.messages[-1].role != "tool":
            return ModelResponse.of(None, tool_call("leaves"))
        return "done" if end == "COMPLETED" else ModelResponse.of(None, tool_call("wipe"))

    output = await Agent(model=FunctionModel(play), tools=[leaves, wipe], db=scene.db).arun("go")
    assert output.status.value == end
    await scene.has_begun()
    steps = scene.steps
    while scene.steps < steps + 3:
        await asyncio.sleep(0.01)
    scene.background[0].cancel()
    await asyncio.wait(scene.background)


async def test_a_run_started_by_a_hook_ends_with_the_run() -> None:
    scene = Scene()

    async def hook() -> None:
        await asyncio.shield(asyncio.create_task(scene.inner.arun("go")))

    agent = Agent(model=FunctionModel(lambda r: "done"), pre_hooks=[hook], timeout=LONG)
    async with scene.late_once_it_has_begun():
        with pytest.raises(KernError):
            await agent.arun("go")
    await scene.assert_over()


async def test_a_run_that_swallows_its_cancellation_is_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from kern.runtime import run_ends

    monkeypatch.setattr(run_ends, "GIVE_UP_SECONDS", 0.1)
    release, began = asyncio.Event(), asyncio.Event()

    async def deaf() -> str:
        began.set()
        while not release.is_set():
            with suppress(asyncio.CancelledError):
                await release.wait()
        return "at last"

    deaf_model = FunctionModel(
        lambda r: "done" if r.messages[-1].role == "tool" else ModelResponse.of(None, tool_call("deaf"))
    )
    inner = Agent(model=deaf_model, tools=[deaf])

    async def ask() -> str:
        return str(await asyncio.shield(asyncio.create_task(inner.arun("go"))))

    asking = ModelResponse.of(None, tool_call("ask"))
    agent = Agent(model=FunctionModel(lambda r: asking), tools=[ask])
    run = asyncio.create_task(agent.arun("go", run_id="r"))
    await began.wait()
    assert agent.cancel_run("r")
    assert (await run).status is RunStatus.cancelled
    assert "had not ended" in caplog.text
    release.set()
    while list(active_runs):
        await asyncio.sleep(0.01)
