"""The public API as type checkers see it. Nothing here runs: see test_typing.py."""

from __future__ import annotations

from collections.abc import Coroutine
from enum import Enum
from typing import Any, Literal, Optional, TypedDict, assert_type

from pydantic import BaseModel

from kern import (
    Agent,
    RunContext,
    RunOutput,
    RunStream,
    Session,
    SessionInfo,
    Team,
    TeamRunOutput,
    tool,
)
from kern.errors import KernError
from kern.run import (
    AnyRunOutput,
    Event,
    RunPausedEvent,
    RunRequirement,
    SessionStateChangedEvent,
    ToolCallStartedEvent,
    ToolExecution,
)
from kern.tools import Function

agent = Agent(name="Clerk")
team = Team(members=[agent])


async def outputs() -> None:
    assert_type(await agent.arun("Hello"), RunOutput)
    assert_type(await team.arun("Hello"), TeamRunOutput)
    assert_type(agent.run("Hello"), RunOutput)
    assert_type(team.run("Hello"), TeamRunOutput)


class Report(BaseModel):
    title: str


class Other(BaseModel):
    pages: int


class Rating(Enum):
    good = 1


class Song(TypedDict):
    title: str


async def contents(dynamic: Agent[Any], run_output: RunOutput) -> None:
    assert_type(run_output.content, str | None)
    assert_type((await agent.arun("Hello")).content, str | None)
    assert_type(team.run("Hello").content, str | None)
    reporter = Agent(output_schema=Report)
    assert_type(reporter, Agent[Report])
    assert_type((await reporter.arun("Hello")).content, Report | None)
    assert_type(reporter.arun("Hello", stream=True).output, RunOutput[Report])
    assert_type(Team([reporter], output_schema=Report).run("Hello").content, Report | None)
    assert_type(Agent(output_schema=list[Report]).run("Hello").content, list[Report] | None)
    assert_type(Agent(output_schema=int).run("Hello").content, int | None)
    either: Agent[Report | Other] = Agent(output_schema=Report | Other)
    assert_type(either.run("Hello").content, Report | Other | None)
    assert_type(Agent(output_schema=Report | Other), Agent[Any])
    assert_type(Agent(output_schema=int | str), Agent[Any])
    assert_type(Agent(output_schema=Optional[Report]), Agent[Any])  # noqa: UP045 - the older spelling
    assert_type(Agent(output_schema=Literal["a", "b"]), Agent[Any])
    assert_type(Agent(output_schema={"type": "object"}), Agent[Any])
    assert_type(Team([reporter], output_schema=Report | Other), Team[Any])
    assert_type(Agent(output_schema=Rating), Agent[Rating])
    assert_type(Agent(output_schema=Song), Agent[Song])
    word: Agent[Literal["a", "b"]] = Agent(output_schema=Literal["a", "b"])
    assert_type(word.run("Hello").content, Literal["a", "b"] | None)
    await agent.arun("Hello", output_schema=Literal["a", "b"])
    assert_type(await agent.arun("Hello", output_schema=Report), RunOutput[Report])
    assert_type(
        await reporter.arun("Hello", output_schema=list[Other], session_id="s"), RunOutput[list[Other]]
    )
    assert_type(team.run("Hello", output_schema=Report), TeamRunOutput[Report])
    assert_type(agent.run("Hello", output_schema=Song, timeout=5), RunOutput[Song])
    assert_type(agent.run("Hello", output_schema=Rating).content, Rating | None)
    Agent(output_schema=5)  # pyright: ignore[reportArgumentType]
    loose: Agent[dict[str, Any]] = Agent(output_schema={"type": "object"})
    assert_type(loose.run("Hello").content, dict[str, Any] | None)
    assert_type((await dynamic.arun("Hello", output_schema=Report)).content, Report | None)
    several: list[Agent[Any]] = [agent, reporter, either]
    Team(several)


async def events() -> None:
    async for event in agent.arun("Hello", stream=True, stream_events=True):
        assert_type(event, Event)
        assert_type(event.run_id, str)
        match event:
            case ToolCallStartedEvent():
                assert_type(event.tool, ToolExecution)
            case RunPausedEvent():
                assert_type(event.requirements, list[RunRequirement])
            case SessionStateChangedEvent():
                assert_type(event.patch, list[dict[str, Any]])
            case _:
                pass
    for event in team.run("Hello", stream=True):
        assert_type(event, Event)
    async for item in team.arun("Hello", stream=True, yield_run_output=True):
        assert_type(item, Event | TeamRunOutput)
    for item in team.run("Hello", stream=True, yield_run_output=True):
        assert_type(item, Event | TeamRunOutput)


async def streams(stream: bool) -> None:
    run = agent.arun("Hello", stream=True)
    assert_type(run, RunStream[RunOutput, Event])
    assert_type(run.output, RunOutput)
    assert_type(team.acontinue_run(run_id="r", stream=True), RunStream[TeamRunOutput, Event])
    assert_type(await team.acontinue_run(run_id="r"), TeamRunOutput)
    either = agent.arun("Hello", stream=stream)
    assert_type(either, Coroutine[Any, Any, RunOutput] | RunStream[RunOutput, Event | RunOutput])


async def state(run_context: RunContext) -> None:
    assert_type(run_context.session_state, dict[str, Any])
    assert_type(run_context.snapshot(), dict[str, Any])
    with run_context.transaction() as state:
        assert_type(state, dict[str, Any])
    async with run_context.transaction() as state:
        assert_type(state, dict[str, Any])


class Cart:
    items: list[str]


async def typed_state(run_context: RunContext[Cart]) -> None:
    assert_type(run_context.session_state, Cart)
    assert_type(run_context.snapshot(), Cart)
    async with run_context.transaction() as cart:
        assert_type(cart, Cart)
        assert_type(cart.items, list[str])


def errors(error: KernError) -> None:
    if error.run_output is not None:
        assert_type(error.run_output.run_id, str)
        assert_type(error.run_output.tools[0].tool_name, str)


@tool
def plain(x: int) -> str:
    return str(x)


assert_type(plain(1), str)
tools: list[Function[..., Any]] = [plain]


async def sessions() -> None:
    session = await agent.aget_session("s")
    assert_type(session, Session[Any] | None)
    typed: Session[Cart] | None = team.get_session("s")
    if typed is not None:
        assert_type(typed.state, Cart)
        assert_type(typed.name, str | None)
        assert_type(typed.runs(), list[AnyRunOutput])
    for info in await agent.alist_sessions(user_id="ann"):
        assert_type(info, SessionInfo)
        assert_type(info.position, int)
    assert_type(agent.list_runs(status="PAUSED"), list[AnyRunOutput])
    assert_type(await agent.adelete_user("ann", cancel=True), int)


def sell(cart: Cart) -> None:
    cart.items.append("sold")


async def sell_later(state: dict[str, Any]) -> None:
    state["stock"] -= 1


async def updates() -> None:
    assert_type(agent.update_session_state(sell), dict[str, Any])
    assert_type(await agent.aupdate_session_state(sell_later), dict[str, Any])
    assert_type(agent.update_session_state(lambda state: state.update(n=1)), dict[str, Any])
    assert_type(agent.update_session_state({"n": 1}), dict[str, Any])


def give(name: str) -> str:
    """Give it a name."""
    return name


def tools_with_options() -> None:
    confirmed = tool(give, requires_confirmation=True)
    assert_type(confirmed("x"), str)
    tool(give, requires_confirmatoin=True)  # pyright: ignore[reportCallIssue]


async def continued(run_id: str) -> None:
    stored = await team.aget_run_output(run_id)
    assert_type(await team.acontinue_run(stored), TeamRunOutput)
