# mypy: ignore-errors
# What it imports is installed in an environment of its own.
"""LangGraph: `create_agent` of LangChain on it, members as tools, state in the graph and its SQLite saver."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

from langchain.agents import AgentState, create_agent
from langchain.messages import ToolMessage
from langchain.tools import ToolRuntime, tool
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.types import Command

from benchmarks.contenders import Job, Setup, expect


@dataclass
class State:
    count: int = 0
    notes: list[str] = field(default_factory=list)


class Counted(AgentState[Any]):
    count: int
    notes: list[str]


@tool
async def add_item(item: str) -> str:
    """Add an item to the list."""
    return f"added {item}"


@tool
async def count(runtime: ToolRuntime[State]) -> str:
    """Count one more."""
    runtime.context.count += 1
    return f"{runtime.context.count}"


@tool
async def count_in_state(runtime: ToolRuntime[None, Counted]) -> Command[Any]:
    """Count one more."""
    number = runtime.state.get("count", 0) + 1
    message = ToolMessage(f"{number}", tool_call_id=runtime.tool_call_id or "")
    return Command(update={"count": number, "messages": [message]})


def _model(setup: Setup, name: str = "") -> ChatOpenAI:
    return ChatOpenAI(model=name or setup.model, base_url=setup.base_url, api_key="none", stream_usage=True)  # type: ignore[arg-type]


def _said(text: str) -> Any:
    return {"messages": [{"role": "user", "content": text}]}


def construct(setup: Setup) -> Job:
    model = _model(setup)

    async def run(number: int) -> Any:
        return create_agent(model, [add_item], name="Lister", system_prompt="Keep the list.")

    return Job(run)


def tool_run(setup: Setup) -> Job:
    agent = create_agent(_model(setup), [add_item])

    async def run(number: int) -> None:
        result = await agent.ainvoke(_said("Add milk to my list."))
        expect(result["messages"][-1].content, "done")

    return Job(run)


def stream(setup: Setup) -> Job:
    agent = create_agent(_model(setup))

    async def run(number: int) -> float:
        started, first, pieces = time.perf_counter(), 0.0, 0
        async for piece, _ in agent.astream(_said("Talk."), stream_mode="messages"):
            if piece.content:
                first = first or time.perf_counter() - started
                pieces += 1
        expect(pieces, setup.count)
        return first

    return Job(run)


def team(setup: Setup) -> Job:
    model = _model(setup, f"tool@{setup.model.partition('@')[2]}")
    members = [_member(model, f"member_{number}") for number in range(setup.count)]
    leader = create_agent(_model(setup), members, context_schema=State)

    async def run(number: int) -> None:
        state = State()
        result = await leader.ainvoke(_said("Count, all of you."), context=state)
        expect(result["messages"][-1].content, "done")
        expect(state.count, setup.count)

    return Job(run)


def _member(model: ChatOpenAI, name: str) -> Any:
    member = create_agent(model, [count], context_schema=State)

    @tool(name)
    async def delegate(task: str, runtime: ToolRuntime[State]) -> str:
        """Counts."""
        result = await member.ainvoke(_said(task), context=runtime.context)
        return str(result["messages"][-1].content)

    return delegate


def session(setup: Setup) -> Job:
    """Its thread keeps the conversation in the state, and sends all of it with each run."""
    opened = AsyncSqliteSaver.from_conn_string(f"{setup.folder}/sessions.db")
    opening = asyncio.ensure_future(opened.__aenter__())
    agent: Any = None
    config: Any = {"configurable": {"thread_id": "the-one"}}

    async def run(number: int) -> None:
        nonlocal agent
        if agent is None:
            saver = await opening
            agent = create_agent(_model(setup), [count_in_state], state_schema=Counted, checkpointer=saver)
        result = await agent.ainvoke(_said("Count."), config)
        expect(result["messages"][-1].content, "done")

    async def final() -> Any:
        return (await agent.aget_state(config)).values["count"]

    async def close() -> None:
        await opened.__aexit__(None, None, None)

    return Job(run, final, close)


def state(setup: Setup) -> Job:
    agent: Any = create_agent(
        _model(setup), [count_in_state], state_schema=Counted, checkpointer=InMemorySaver()
    )
    notes = ["x" * 80] * (setup.size // 84)

    async def run(number: int) -> None:
        config = {"configurable": {"thread_id": f"thread-{number}"}}
        result = await agent.ainvoke({**_said("Count."), "notes": notes, "count": 0}, config)
        expect(result["messages"][-1].content, "done")

    return Job(run)
