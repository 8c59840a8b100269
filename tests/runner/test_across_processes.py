"""Errors, agents and teams are copied and pickled: into worker processes, and back."""

from __future__ import annotations

import asyncio
import copy
import inspect
import multiprocessing
import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from kern import Agent, KernError, Team, UsageError, errors, tool
from kern.db.in_memory import InMemoryDb
from kern.db.sqlite import SqliteDb
from kern.messages import Message
from kern.models.openai import OpenAIChat, OpenAIResponses
from kern.run import RunOutput
from kern.runner.compile import function_tools
from kern.runner.definition import default_session, id_of
from kern.testing import Fault, ModelServer, ScriptedModel, tool_call
from kern.tools import Function, Toolkit
from kern.tools.mcp import MCPTools
from kern.usage import Usage

TOLD = {"provider": "openai", "model": "m"}
MADE: dict[str, Callable[[], BaseException]] = {
    "MissingExtraError": lambda: errors.MissingExtraError("rich", "console"),
    "ModelIncompleteError": lambda: errors.ModelIncompleteError("cut", reason="x", usage=Usage(), **TOLD),
    "InvalidStateError": lambda: errors.InvalidStateError("no JSON", path="/a"),
    "StateLockTimeout": lambda: errors.StateLockTimeout(waiter="a", holder="b", seconds=3),
    "SessionOwnershipError": lambda: errors.SessionOwnershipError("s"),
    "SessionBusyError": lambda: errors.SessionBusyError("s"),
    "SessionDeletedError": lambda: errors.SessionDeletedError("s"),
    "UsageLimitExceeded": lambda: errors.UsageLimitExceeded("requests", 3),
    "HookError": lambda: errors.HookError("oh", hook="check"),
    "RunMismatch": lambda: errors.RunMismatch("r", "input"),
}


def an_error(kind: type[BaseException]) -> BaseException:
    if kind.__name__ in MADE:
        return MADE[kind.__name__]()
    if issubclass(kind, errors.ModelStatusError):
        return kind("slow down", status=429, code="c", request_id="r", retry_after=3.0, **TOLD)
    if issubclass(kind, errors.ModelError):
        return kind("no way", **TOLD)
    if issubclass(kind, errors.ToolError):
        return kind("late", tool="look")
    return kind("what happened")


def pickled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


ERRORS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == "kern.errors"]
PUBLIC = [kind for kind in ERRORS if not kind.__name__.startswith("_")]
WAYS = [pickled, copy.copy, copy.deepcopy]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", PUBLIC)
def test_an_error_is_the_same_afterwards(kind: type[BaseException], way: Callable[[Any], Any]) -> None:
    error: Any = an_error(kind)
    error.add_note("in the morning")
    error.run_output = RunOutput(run_id="r", session_id="s", messages=[Message("user", "Hello")])
    twin = way(way(error))
    assert type(twin) is kind
    assert str(twin) == str(error)
    assert twin.args == error.args
    assert vars(twin) == vars(error)


class Refused(errors.InputCheckError):
    """As an application may write one."""

    def __init__(self, rule: str, *, level: int) -> None:
        super().__init__(f"the rule {rule} refuses this")
        self.level = level


@pytest.mark.parametrize("way", WAYS)
def test_so_is_one_of_the_application_s_own(way: Callable[[Any], Any]) -> None:
    twin = way(Refused("politeness", level=3))
    assert (str(twin), twin.level) == ("the rule politeness refuses this", 3)


def test_an_output_that_cannot_be_pickled_becomes_plain_json_in_the_error() -> None:
    class Local(BaseModel):
        n: int

    error = KernError("failed")
    error.run_output = RunOutput(run_id="r", session_id="s", content=Local(n=1), content_type="Local")
    assert pickled(error).run_output.content == {"n": 1}
    assert copy.copy(error).run_output is error.run_output
    assert copy.deepcopy(error).run_output.content == Local(n=1)
    assert isinstance(error.run_output.content, Local)


def ask(base_url: str) -> Any:
    """What a worker does."""
    agent = Agent(model=OpenAIChat("m", base_url=base_url, api_key="any", max_retries=0))
    return asyncio.run(agent.arun("Hello")).content


def test_a_worker_s_rate_limit_arrives_as_such() -> None:
    with ModelServer([Fault.status(429, message="slow down", code="rate_limit_exceeded")]) as server:
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=spawn) as pool, pytest.raises(KernError) as caught:
            pool.submit(ask, server.base_url).result(timeout=25)
    assert isinstance(caught.value, errors.ModelRateLimitError)
    assert (caught.value.status, caught.value.code) == (429, "rate_limit_exceeded")
    assert caught.value.run_output.status == "ERROR"


# Agents and teams


def look(q: str = "") -> str:
    """Look something up."""
    return f"looked up {q}"


@tool(show_result=True)
def find(q: str, /, most: int = 3) -> str:
    """Find something."""
    return f"found {q} {most}"


class Notes(Toolkit):
    def __init__(self) -> None:
        self.kept: list[str] = []
        super().__init__(name="notes", tools=[self.write, self.read])

    def write(self, text: str) -> str:
        """Write a note."""
        self.kept.append(text)
        return "written"

    @tool(description="Read all notes.")
    def read(self) -> list[str]:
        return self.kept


def agent(url: str = "", **options: Any) -> Agent:
    model = OpenAIChat("m", base_url=url or "http://127.0.0.1:9", api_key="any")
    return Agent(**{"name": "a", "model": model, "tools": [look, find, Notes()], **options})


def team(url: str = "", **options: Any) -> Team:
    return Team([agent(url)], **{"name": "t", "model": agent(url).model, "tools": [look, find], **options})


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("make", [agent, team])
@pytest.mark.parametrize("ran", [False, True])
async def test_a_copy_runs_whether_the_original_has_or_not(
    make: Callable[..., Any], way: Callable[[Any], Any], ran: bool
) -> None:
    async with ModelServer(["one", "two"]) as server:
        original = make(server.base_url)
        if ran:
            await original.arun("Hello")
        twin = way(original)
        output = await twin.arun("And then?")
    assert output.status == "COMPLETED"
    assert id_of(twin) == id_of(original)
    assert output.session_id == default_session(original, None)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("ran", [False, True])
async def test_one_with_a_file_goes_on_in_that_file(
    way: Callable[[Any], Any], ran: bool, tmp_path: Path
) -> None:
    db = SqliteDb(tmp_path / "a.db", session_table="mine", busy_timeout=7)
    async with ModelServer(["one", "two"]) as server:
        original = agent(server.base_url, db=db, session_id="s")
        if ran:
            await original.arun("Hello")
        twin = way(original)
        await twin.arun("And then?")
    assert len(await original.aget_chat_history()) == (4 if ran else 2)
    assert twin.db.identity == db.identity
    assert twin.db._busy_timeout == 7


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy])
@pytest.mark.parametrize("db", [InMemoryDb(), None])
async def test_a_copy_shares_the_sessions_in_memory(way: Callable[[Any], Any], db: InMemoryDb | None) -> None:
    original = Agent(model=ScriptedModel(["one"]), db=db)
    twin = way(original)
    await original.arun("Hello")
    assert [m.content for m in await twin.aget_chat_history()] == ["Hello", "one"]


def test_a_database_in_memory_is_not_pickled() -> None:
    with pytest.raises(UsageError, match="belongs to one process"):
        pickle.dumps(agent(db=InMemoryDb()))


async def test_what_was_said_in_memory_does_not_go_along_with_a_pickled_agent() -> None:
    async with ModelServer(["one"]) as server:
        original = agent(server.base_url)
        await original.arun("Hello")
    assert await pickled(original).aget_chat_history() == []


@pytest.mark.parametrize("way", WAYS)
def test_the_tools_of_a_copy_are_the_same(way: Callable[[Any], Any]) -> None:
    original = agent()
    twin = way(original)
    assert function_tools(twin).keys() == {"look", "find", "write", "read"}
    for name, made in function_tools(twin).items():
        assert made.definition == function_tools(original)[name].definition
    assert twin.tools[1] is find


@pytest.mark.parametrize("way", [pickled, copy.deepcopy])
def test_the_methods_of_a_copied_toolkit_are_those_of_the_copy(way: Callable[[Any], Any]) -> None:
    notes = Notes()
    twin = way(notes)
    twin.functions["write"](text="milk")
    assert twin.functions["read"]() == twin.kept == ["milk"]
    assert notes.kept == []


@pytest.mark.parametrize("way", WAYS)
def test_a_tool_with_other_options_keeps_them(way: Callable[[Any], Any]) -> None:
    changed = way(find.replace(timeout=3, name="seek"))
    assert (changed.name, changed.timeout, changed(q="x")) == ("seek", 3, "found x 3")
    assert way(Function(look, strict=True)).strict


@pytest.mark.parametrize("model", [OpenAIChat, OpenAIResponses])
async def test_a_copied_model_has_settings_of_its_own_and_the_same_client(model: Any) -> None:
    async with httpx.AsyncClient() as client:
        original = model("m", api_key="secret-key", http_client=client, extra_body={"a": {"b": 1}})
        twin = copy.deepcopy(Agent(model=original)).model
        assert twin.http_client is client
        twin.extra_body["a"]["b"] = 2
        assert original.extra_body == {"a": {"b": 1}}


def test_mcp_tools_are_shared_by_copies_and_connect_anew_elsewhere() -> None:
    tools = MCPTools(url="http://127.0.0.1:9/mcp", tool_name_prefix="x", headers={"authorization": "k"})
    original = Agent(model=ScriptedModel(["x"]), tools=[tools])
    assert copy.deepcopy(original).tools == [tools]
    twin = pickled(Agent(tools=[tools])).tools[0]
    assert twin is not tools
    assert (twin.name, twin.tool_name_prefix) == (tools.name, "x")


class Special(Agent):
    """An application's own, with attributes of its own."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.mine = {"a": 1}


@pytest.mark.parametrize("way", WAYS)
def test_a_subclass_keeps_its_own_attributes(way: Callable[[Any], Any]) -> None:
    twin = way(Special(name="s"))
    assert (type(twin), twin.mine, twin.name) == (Special, {"a": 1}, "s")


@pytest.mark.parametrize("way", WAYS)
async def test_the_output_of_a_run_is_the_same_afterwards(way: Callable[[Any], Any]) -> None:
    run = Agent(model=ScriptedModel([tool_call("look", q="x"), "done"]), tools=[look], store_events=True)
    output = await run.arun("Hello")
    assert way(output) == output
