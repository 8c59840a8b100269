"""Cancelling by id, deadlines, limits, retries and fallbacks."""

from __future__ import annotations

import asyncio

import pytest

from kern import Agent, RunContext, RunStatus, Team
from kern.db.sqlite import SqliteDb
from kern.errors import (
    ModelAuthError,
    ModelIncompleteError,
    ModelServerError,
    RunDeadlineExceeded,
    UsageLimitExceeded,
)
from kern.messages import Message
from kern.models.base import ModelRequest, ModelResponse
from kern.models.openai import OpenAIChat
from kern.run import BaseRunEvent, RunCompletedEvent
from kern.runner.compile import database_of
from kern.runtime.session import live_sessions
from kern.testing import FunctionModel, ModelServer, ScriptedModel, tool_call
from kern.usage import Usage, UsageLimits


async def slow(run_context: RunContext) -> str:
    """Take the state and wait."""
    run_context.session_state["touched"] = True
    await asyncio.sleep(30)
    return "never"


async def wait_for_tool(agent: Agent | Team, run_id: str) -> tuple[asyncio.Task, asyncio.Event]:  # type: ignore[type-arg]
    started = asyncio.Event()

    async def consume() -> object:
        output = None
        stream = agent.arun("go", stream=True, stream_events=True, yield_run_output=True, run_id=run_id)
        async for event in stream:
            if isinstance(event, BaseRunEvent):
                if event.event == "ToolCallStarted":
                    started.set()
            else:
                output = event
        return output

    task = asyncio.create_task(consume())
    await started.wait()
    await asyncio.sleep(0.01)
    return task, started


async def test_cancel_run_returns_the_output_to_whoever_awaits_it() -> None:
    agent = Agent(model=ScriptedModel([tool_call("slow")]), tools=[slow])
    task, _ = await wait_for_tool(agent, "run-1")
    assert await agent.acancel_run("run-1")
    output = await task
    assert output.status is RunStatus.cancelled
    assert output.session_state == {}
    stored = await agent.aget_run_output("run-1")
    assert stored is not None
    assert stored.status is RunStatus.cancelled
    assert len(live_sessions) == 0
    assert task.cancelling() == 0


async def test_a_cancelled_member_is_told_to_the_leader() -> None:
    def lead(request: ModelRequest) -> ModelResponse | str:
        if request.messages[-1].role == "tool":
            return f"told: {request.messages[-1].content}"
        return ModelResponse.of(None, tool_call("delegate_task_to_member", member_id="slow", task="x"))

    member = Agent(name="Slow", model=ScriptedModel([tool_call("slow")]), tools=[slow])
    team = Team([member], model=FunctionModel(lead))
    task, _ = await wait_for_tool(team, "run-2")
    child = next(run for run in _runs() if run.parent is not None)
    assert await team.acancel_run(child.run_id)
    output = await task
    assert output.status is RunStatus.completed
    assert output.content == "told: Slow was cancelled."
    assert output.member_responses[0].status is RunStatus.cancelled


def _runs() -> list:  # type: ignore[type-arg]
    from kern.runtime.active_runs import active_runs

    return [run for active in active_runs if active.tree is not None for run in active.tree.runs]


async def test_another_process_cancels_through_the_database(tmp_path) -> None:  # type: ignore[no-untyped-def]
    agent = Agent(model=ScriptedModel([tool_call("slow")]), tools=[slow], db=SqliteDb(tmp_path / "a.db"))
    task, _ = await wait_for_tool(agent, "run-3")
    await database_of(agent).request_cancel("run-3")  # what acancel_run does where the run is not driven
    output = await asyncio.wait_for(task, 10)
    assert output.status is RunStatus.cancelled


async def test_a_run_id_that_nobody_drives_is_no_error() -> None:
    agent = Agent(model=ScriptedModel([]))
    assert not await agent.acancel_run("unknown")


async def test_a_deadline_ends_the_run_with_its_own_error() -> None:
    agent = Agent(model=ScriptedModel([tool_call("slow")]), tools=[slow], timeout=0.05)
    with pytest.raises(RunDeadlineExceeded, match=r"0\.05 s") as caught:
        await agent.arun("go")
    assert caught.value.run_output.status is RunStatus.error
    assert (await agent.aget_session_state()) == {}


async def test_twenty_parallel_members_under_a_limit_of_seven_requests() -> None:
    def play(request):  # type: ignore[no-untyped-def]
        if "delegate_task_to_member" in request.tool_names:
            from kern.testing import Answer

            calls = [tool_call("delegate_task_to_member", member_id=f"m{i}", task="x") for i in range(20)]
            return Answer(tool_calls=calls)
        return "done"

    async with ModelServer(play) as server:
        model = OpenAIChat(id="m", base_url=server.base_url)
        team = Team([Agent(name=f"m{i}") for i in range(20)], model=model)
        with pytest.raises(UsageLimitExceeded, match="7 requests"):
            await team.arun("go", usage_limits=UsageLimits(requests=7))
        assert len(server.requests) == 7


async def test_a_limit_on_tool_calls_ends_the_run() -> None:
    def again(request: ModelRequest) -> ModelResponse:
        return ModelResponse.of(None, tool_call("noop"))

    def noop() -> str:
        """Do nothing."""
        return "ok"

    agent = Agent(model=FunctionModel(again), tools=[noop], usage_limits=UsageLimits(tool_calls=3))
    with pytest.raises(UsageLimitExceeded) as caught:
        await agent.arun("go")
    assert sum(tool.result == "ok" for tool in caught.value.run_output.tools) == 3


def server_error() -> ModelServerError:
    return ModelServerError("down", status=500, provider="test", model="m")


async def test_a_retry_does_not_run_tools_again() -> None:
    ran: list[str] = []

    def note() -> str:
        """Note."""
        ran.append("note")
        return "noted"

    model = ScriptedModel([tool_call("note"), server_error(), server_error(), "done"])
    agent = Agent(model=model, tools=[note], retries=2, delay_between_retries=0.0)
    output = await agent.arun("go")
    assert output.content == "done"
    assert ran == ["note"]
    model.assert_exhausted()


async def test_what_cannot_pass_is_not_retried_but_falls_back() -> None:
    refused = ModelAuthError("wrong key", status=401, provider="test", model="m")
    main = ScriptedModel([refused])
    agent = Agent(model=main, retries=5, fallback_models=[ScriptedModel(["from the other"], id="other")])
    output = await agent.arun("go")
    assert output.content == "from the other"
    assert output.model == "other"
    main.assert_exhausted()


async def test_an_answer_that_was_cut_is_not_asked_for_again_but_falls_back_and_is_counted() -> None:
    cost = Usage(input_tokens=7, output_tokens=3, total_tokens=10, requests=1)
    cut = ModelIncompleteError("cut", reason="max_output_tokens", usage=cost, provider="test", model="m")
    main = ScriptedModel([cut])
    agent = Agent(
        model=main,
        retries=5,
        delay_between_retries=0.0,
        fallback_models=[ScriptedModel(["whole"], id="other")],
    )
    output = await agent.arun("go")
    assert output.content == "whole"
    assert output.metrics.requests == 2
    assert output.metrics.input_tokens == 7
    main.assert_exhausted()


async def test_a_limit_of_a_run_inside_a_tool_is_that_tool_s_trouble() -> None:
    inner = Agent(model=ScriptedModel([]))

    async def ask() -> str:
        """Ask another agent."""
        return str((await inner.arun("go", usage_limits=UsageLimits(requests=0))).content)

    model = ScriptedModel([tool_call("ask"), lambda request: request.messages[-1].content or ""])
    output = await Agent(model=model, tools=[ask]).arun("go")
    assert "the limit of 0 requests is reached" in output.content


async def test_streamed_text_is_void_when_a_turn_is_made_again() -> None:
    class Breaks(ScriptedModel):
        async def respond(self, request, sink):  # type: ignore[no-untyped-def]
            sink.content("half of ")
            raise server_error()

    agent = Agent(model=Breaks([]), fallback_models=[ScriptedModel(["whole"])])
    events = [e async for e in agent.arun("go", stream=True, stream_events=True)]
    names = [e.event for e in events]
    assert names.index("RunContent") < names.index("ModelRetry") < names.index("RunCompleted")
    completed = next(e for e in events if isinstance(e, RunCompletedEvent))
    assert completed.content == "whole"
    shown = []
    with pytest.raises(ModelServerError):
        async for event in agent.arun("go", stream=True):
            shown.append(event.event)
    assert shown == ["RunContent", "RunError"]


def test_messages_are_plain_data() -> None:
    message = Message("user", "x")
    assert Message.from_dict(message.to_dict()) == message


async def test_eight_hundred_calls_of_one_turn_stay_within_the_bound() -> None:
    running = most = 0

    async def work(number: int) -> str:
        """Work."""
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return str(number)

    calls = [tool_call("work", number=number) for number in range(800)]
    model = ScriptedModel([ModelResponse.of(None, *calls), "done"])
    output = await Agent(model=model, tools=[work]).arun("go")
    assert [tool.result for tool in output.tools] == [str(number) for number in range(800)]
    assert most == 16


async def test_tools_that_wait_for_the_state_leave_room_for_the_one_that_has_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from kern._sync.threads import ThreadPool

    def outer(run_context: RunContext) -> str:
        """Take the state, then run an agent that takes it too."""
        run_context.session_state["n"] += 1
        return str(inner_agent.run("go", session_id=run_context.session_id).content)

    def inner(run_context: RunContext) -> str:
        """Take the state."""
        run_context.session_state["n"] += 1
        return "inner"

    inner_agent = Agent(model=FunctionModel(lambda r: "in" if len(r.messages) > 1 else tool_call("inner")))
    inner_agent.tools = [inner]
    calls = [tool_call("outer") for _ in range(12)]
    agent = Agent(model=ScriptedModel([ModelResponse.of(None, *calls), "done"]), tools=[outer])
    agent.session_state = {"n": 0}
    inner_agent.db = database_of(agent)
    monkeypatch.setattr("kern.runtime.invoke.threads", ThreadPool(places=2))
    output = await agent.arun("go")
    assert not any(tool.tool_call_error for tool in output.tools)
    assert output.session_state == {"n": 24}
