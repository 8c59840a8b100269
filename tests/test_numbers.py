"""A number that a program passes is checked where it is passed: NaN, a text and True are none."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable
from typing import Any

import pytest

import kern
from kern import Agent, Team, Toolkit, tool
from kern._numbers import MOST, check_whole
from kern.db import InMemoryDb, SqliteDb
from kern.db.postgres import PostgresDb
from kern.durable import DbJournal
from kern.durable.deltas import InMemoryDeltas
from kern.durable.redis import RedisDeltas
from kern.engines import Worker
from kern.errors import UsageError
from kern.guardrails import PromptLengthGuardrail
from kern.models.anthropic import AnthropicMessages
from kern.models.anthropic import tools as anthropic
from kern.models.google import Gemini
from kern.models.google import tools as google
from kern.models.openai import OpenAIChat, server_tools
from kern.testing import ScriptedModel
from kern.tools.duckduckgo import DuckDuckGoTools
from kern.tools.mcp import MCPTools
from kern.usage import Price, UsageLimits


def look() -> str:
    """Look."""
    return "seen"


def agent(**options: Any) -> Agent:
    return Agent(id="a", model=ScriptedModel(["done"] * 3), db=InMemoryDb(), session_id="s", **options)


async def waited(seconds: Any) -> None:
    handle = await agent().astart("x")
    await handle.result()
    handle.wait(timeout=seconds)


async def of_a_session(limit: Any) -> None:
    one = agent()
    await one.arun("x")
    session = await one.aget_session()
    assert session is not None
    await session.aruns(limit)


async def at_revision(revision: Any) -> None:
    one = agent()
    await one.arun("x")
    await one.aget_session_state(revision=revision)


async def forked_at(revision: Any) -> None:
    one = agent()
    await one.arun("x")
    await one.afork_session(revision=revision)


async def followed_after(seq: Any) -> None:
    handle = await agent().astart("x", run_id="r")
    await handle.result()
    _ = [event async for event in handle.follow(after=seq)]


Makes = Callable[[Any], Any]
TIMES: dict[str, Makes] = {
    "Agent(timeout)": lambda n: agent(timeout=n),
    "Agent.arun(timeout)": lambda n: agent().arun("x", timeout=n),
    "Team(member_timeout)": lambda n: Team([], model=ScriptedModel([]), member_timeout=n),
    "SqliteDb(busy_timeout)": lambda n: SqliteDb("never-opened.db", busy_timeout=n),
    "PostgresDb(busy_timeout)": lambda n: PostgresDb("postgresql://h/d", busy_timeout=n),
    "DbJournal(claim_seconds)": lambda n: DbJournal(InMemoryDb(), claim_seconds=n),
    "InMemoryDeltas(keep_seconds)": lambda n: InMemoryDeltas(keep_seconds=n),
    "RedisDeltas(keep_seconds)": lambda n: RedisDeltas("redis://h", keep_seconds=n),
    "RedisDeltas(timeout)": lambda n: RedisDeltas("redis://h", timeout=n),
    "Worker(poll_seconds)": lambda n: Worker([agent()], poll_seconds=n),
    "Worker(claim_seconds)": lambda n: Worker([agent()], claim_seconds=n),
    "RunHandle.wait(timeout)": waited,
    "kern.shutdown(timeout)": lambda n: kern.shutdown(n),
    "tool(timeout)": lambda n: tool(timeout=n)(look),
    "tool(cache_ttl)": lambda n: tool(cache_ttl=n)(look),
    "Toolkit(cache_ttl)": lambda n: Toolkit(name="t", tools=[look], cache_ttl=n),
    "MCPTools(timeout_seconds)": lambda n: MCPTools(url="http://h", timeout_seconds=n),
    "MCPTools(connect_timeout_seconds)": lambda n: MCPTools(url="http://h", connect_timeout_seconds=n),
    "DuckDuckGoTools(timeout)": lambda n: DuckDuckGoTools(timeout=n),
    "OpenAIChat(timeout)": lambda n: OpenAIChat("m", api_key="k", timeout=n),
}
COUNTS: dict[str, Makes] = {
    "Agent(num_history_runs)": lambda n: agent(num_history_runs=n),
    "Agent(max_requests)": lambda n: agent(max_requests=n),
    "Agent(retries)": lambda n: agent(retries=n),
    "Team(max_iterations)": lambda n: Team([], model=ScriptedModel([]), max_iterations=n),
    "Agent.amap(concurrency)": lambda n: agent().amap(["x"], concurrency=n),
    "Agent.alist_runs(limit)": lambda n: agent().alist_runs(limit=n),
    "Agent.alist_sessions(limit)": lambda n: agent().alist_sessions(limit=n),
    "Agent.aget_session_messages(limit)": lambda n: agent().aget_session_messages(limit=n),
    "Session.aruns(limit)": of_a_session,
    "Agent.aget_session_state(revision)": at_revision,
    "Agent.afork_session(revision)": forked_at,
    "RunHandle.follow(after)": followed_after,
    "PostgresDb(pool_size)": lambda n: PostgresDb("postgresql://h/d", pool_size=n),
    "PostgresDb(statement_cache_size)": lambda n: PostgresDb("postgresql://h/d", statement_cache_size=n),
    "InMemoryDeltas(max_deltas)": lambda n: InMemoryDeltas(max_deltas=n),
    "RedisDeltas(max_deltas)": lambda n: RedisDeltas("redis://h", max_deltas=n),
    "Worker(at_once)": lambda n: Worker([agent()], at_once=n),
    "Worker(attempts)": lambda n: Worker([agent()], attempts=n),
    "PromptLengthGuardrail(max_length)": PromptLengthGuardrail,
    "MCPTools(max_answer_bytes)": lambda n: MCPTools(url="http://h", max_answer_bytes=n),
    "DuckDuckGoTools(fixed_max_results)": lambda n: DuckDuckGoTools(fixed_max_results=n),
    "OpenAIChat(max_output_tokens)": lambda n: OpenAIChat("m", api_key="k", max_output_tokens=n),
    "AnthropicMessages(thinking)": lambda n: AnthropicMessages("m", api_key="k", thinking=n),
    "WebSearch(max_uses)": lambda n: anthropic.WebSearch(max_uses=n),
    "WebFetch(max_content_tokens)": lambda n: anthropic.WebFetch(max_content_tokens=n),
    "FileSearch(top_k)": lambda n: google.FileSearch(stores=("a",), top_k=n),
    "FileSearch(max_num_results)": lambda n: server_tools.FileSearch(
        vector_store_ids=["a"], max_num_results=n
    ),
    "ImageGeneration(output_compression)": lambda n: server_tools.ImageGeneration(output_compression=n),
    "kern.limit_threads(most)": kern.limit_threads,
}
OTHERS: dict[str, Makes] = {
    "OpenAIChat(temperature)": lambda n: OpenAIChat("m", api_key="k", temperature=n),
    "Gemini(top_k)": lambda n: Gemini("m", api_key="k", top_k=n),
    "Gemini(seed)": lambda n: Gemini("m", api_key="k", seed=n),
    "OpenAIChat(seed)": lambda n: OpenAIChat("m", api_key="k", seed=n),
    "Price(input)": lambda n: Price(input=n, output=1),
    "UsageLimits(requests)": lambda n: UsageLimits(requests=n),
}


async def refused(makes: dict[str, Makes], what: str, wrong: Any) -> str:
    """The error for the wrong value, which names the parameter."""
    with pytest.raises(UsageError) as caught:
        made = makes[what](wrong)
        if inspect.isawaitable(made):
            await made
    name = what.partition("(")[2][:-1]
    assert name in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("wrong", [math.nan, -1, -math.inf, "5", True, 10**400])
@pytest.mark.parametrize("what", TIMES)
async def test_a_time_is_a_number_of_seconds(what: str, wrong: Any) -> None:
    await refused(TIMES, what, wrong)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -1, 1.5, "5", True])
@pytest.mark.parametrize("what", COUNTS)
async def test_a_count_is_a_whole_number(what: str, wrong: Any) -> None:
    await refused(COUNTS, what, wrong)


@pytest.mark.parametrize("wrong", [math.nan, "5", True])
@pytest.mark.parametrize("what", OTHERS)
async def test_another_number_is_a_number(what: str, wrong: Any) -> None:
    await refused(OTHERS, what, wrong)


@pytest.mark.parametrize("what", [what for what in COUNTS if "(limit)" in what or "(revision)" in what])
@pytest.mark.parametrize("wrong", [2**63, 10**5000], ids=["2**63", "10**5000"])
async def test_a_number_that_no_database_holds_is_refused(what: str, wrong: int) -> None:
    await refused(COUNTS, what, wrong)


@pytest.mark.parametrize("database", ["memory", "sqlite"])
async def test_the_largest_limit_is_no_limit(database: str, tmp_path: Any) -> None:
    db = InMemoryDb() if database == "memory" else SqliteDb(tmp_path / "kern.db")
    one = Agent(model=ScriptedModel(["done"] * 3), db=db, session_id="s")
    await one.arun("x")
    assert len(await one.alist_runs(limit=sys.maxsize)) == 1
    assert len(await one.alist_runs(session_id="s", limit=sys.maxsize)) == 1
    assert len(await one.alist_sessions(limit=sys.maxsize, before=MOST)) == 1
    assert await one.alist_sessions(limit=sys.maxsize, before=-MOST) == []
    assert len(await one.aget_session_messages(limit=sys.maxsize)) == 2


def test_an_integer_that_python_does_not_write_is_refused_all_the_same() -> None:
    with pytest.raises(UsageError, match="n must be a whole number, at most 5, not an integer of 16610 bits"):
        check_whole("n", 10**5000, 0, 5)
