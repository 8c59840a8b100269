"""One global team, a thousand sessions of different users at once: no value crosses, and nobody gets in."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest

from kern.agent import Agent
from kern.db.in_memory import InMemoryDb
from kern.errors import SessionOwnershipError
from kern.models.base import ModelRequest, ModelResponse
from kern.run import RunContext
from kern.run.tool_execution import ToolExecution
from kern.runtime.portal import portal
from kern.runtime.session import live_sessions
from kern.team import Team
from kern.testing import FunctionModel, tool_call
from tests.played import agent_with

# A thousand at once.


async def note_async(run_context: RunContext) -> str:
    state = run_context.session_state
    await asyncio.sleep(0)
    state["notes"].append([run_context.user_id, run_context.session_id, "async"])
    return f"noted for {state['owner']}"


def note_sync(run_context: RunContext) -> str:
    run_context.session_state["notes"].append([run_context.user_id, run_context.session_id, "sync"])
    return f"noted for {run_context.session_state['owner']}"


def play(request: ModelRequest) -> ModelResponse:
    """Calls all tools it has, then repeats whom the prompt is about."""
    users = set(re.findall(r"user-\d+", " ".join(message.content or "" for message in request.messages)))
    assert len(users) == 1, f"a prompt that is about {users}"
    if request.messages[-1].role == "tool":
        return ModelResponse.of(f"done for {users.pop()}")
    calls = [tool_call(tool.name) for tool in request.tools if tool.name.startswith("note")]
    if not calls:
        task = f"note something for {users.pop()}"
        calls = [
            tool_call("delegate_task_to_member", member_id=member, task=task) for member in ("ann", "bob")
        ]
    return ModelResponse.of(None, *calls)


@pytest.mark.timeout(120)  # of work that takes five seconds on an idle machine
async def test_of_a_thousand_interleaved_sessions_no_value_crosses() -> None:
    prompt = {"instructions": "You work for {owner} ({user_id})", "add_session_state_to_context": True}
    team = Team(
        [
            Agent(name="Ann", tools=[note_async], **prompt),
            Agent(name="Bob", tools=[note_sync], **prompt),
        ],
        model=FunctionModel(play),
        db=InMemoryDb(),
        session_state={"notes": []},
        **prompt,
    )
    inside = most = 0

    async def one(number: int) -> None:
        nonlocal inside, most
        user = f"user-{number}"
        inside += 1
        most = max(most, inside)
        output = await team.arun(
            f"Hello from {user}",
            user_id=user,
            session_id=f"session-{number}" if number % 2 else None,
            session_state={"owner": user},
        )
        inside -= 1
        assert output.content == f"done for {user}"
        assert output.user_id == user
        assert output.session_state is not None
        assert output.session_state["owner"] == user
        notes = output.session_state["notes"]
        assert {note[0] for note in notes} == {user}
        assert {note[1] for note in notes} == {output.session_id}
        assert sorted(note[2] for note in notes) == ["async", "sync"]
        assert [tool.result for member in output.member_responses for tool in member.tools] == [
            f"noted for {user}"
        ] * 2

    await asyncio.gather(*(one(number) for number in range(1000)))
    assert most == 1000
    assert team.session_state == {"notes": []}
    assert len(live_sessions) == 0


# A foreign user.

SESSION = "owned"
ARGUMENTS: dict[str, Any] = {"run_id": "the-run", "name": "mine now", "updates": {"stolen": True}}
"""What the accessors' required parameters are given."""

STARTING = {"run", "print_response", "cli_app", "continue_run"}
"""These start runs; their options are spelled out in a TypedDict."""

OF_THE_USER = {"list_sessions", "delete_user"}
"""These name no session: they work on what the user has."""


def methods(kind: type) -> dict[str, Callable[..., Any]]:
    return {
        name: method
        for name, method in inspect.getmembers(kind, callable)
        if not name.startswith("_") and inspect.isfunction(method)
    }


def accessors(kind: type) -> list[str]:
    """The methods that take a session or a user, or are about a run: found, so that none is forgotten."""
    return [
        name
        for name, method in methods(kind).items()
        if name.removeprefix("a") not in STARTING
        and name != "default_session_id"
        and {"user_id", "session_id"} & set(inspect.signature(method).parameters)
    ]


@pytest.mark.parametrize("kind", [Agent, Team])
def test_every_accessor_takes_a_user_and_has_a_sync_and_an_async_form(kind: type) -> None:
    names = accessors(kind)
    assert {"get_session_state", "aget_chat_history", "delete_session", "aset_session_name"} <= set(names)
    for name in names:
        assert "user_id" in inspect.signature(methods(kind)[name]).parameters, name
        if name == "follow":  # an async iterator, which is read by async code
            continue
        twin = name[1:] if inspect.iscoroutinefunction(methods(kind)[name]) else f"a{name}"
        assert twin in names


@pytest.fixture
async def owned() -> Agent:
    agent = agent_with(name="Owned", db=InMemoryDb(), session_id=SESSION, session_state={"secret": 1})
    await agent.arun("go", user_id="alice", run_id="the-run")
    return agent


@pytest.mark.parametrize(
    "name", [name for name in accessors(Agent) if name.removeprefix("a") not in OF_THE_USER]
)
@pytest.mark.parametrize("who", ["mallory", ""])
async def test_a_foreign_user_gets_an_error_from_every_accessor(owned: Agent, name: str, who: str) -> None:
    method = getattr(owned, name)
    required = [
        parameter.name
        for parameter in inspect.signature(method).parameters.values()
        if parameter.default is inspect.Parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
    ]
    arguments = {parameter: ARGUMENTS[parameter] for parameter in required}
    if "session_id" in inspect.signature(method).parameters:
        arguments["session_id"] = SESSION

    async def call() -> Any:
        if name == "follow":
            return [event async for event in method(**arguments, user_id=who)]
        if inspect.iscoroutinefunction(method):
            return await method(**arguments, user_id=who)
        return await asyncio.to_thread(method, **arguments, user_id=who)

    with pytest.raises(SessionOwnershipError) as raised:
        await call()
    assert raised.value.session_id == SESSION
    assert "secret" not in str(raised.value)
    assert await owned.aget_session_state(user_id="alice", session_id=SESSION) == {"secret": 1}
    assert await owned.aget_session_name(SESSION, user_id="alice") is None
    assert await owned.aget_run_output("the-run", user_id="alice") is not None


@pytest.mark.parametrize("who", ["mallory", ""])
async def test_what_names_no_session_finds_nothing_of_another_user(owned: Agent, who: str) -> None:
    assert await owned.alist_sessions(user_id=who) == []
    assert await owned.alist_runs(user_id=who) == []
    assert await owned.adelete_user(who) == 0
    assert await asyncio.to_thread(owned.list_sessions, user_id=who) == []
    assert await asyncio.to_thread(owned.delete_user, who) == 0
    assert await owned.aget_run_output("the-run", user_id="alice") is not None


@pytest.mark.parametrize("who", ["mallory", None])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_foreign_user_cannot_run_on_the_session(owned: Agent, who: str | None, stream: bool) -> None:
    async def run() -> None:
        if stream:
            async for _ in owned.arun("go", stream=True, session_id=SESSION, user_id=who):
                pass
        else:
            await owned.arun("go", session_id=SESSION, user_id=who, session_state={"stolen": True})

    with pytest.raises(SessionOwnershipError):
        await run()
    with pytest.raises(SessionOwnershipError):
        await owned.aprint_response("go", session_id=SESSION, user_id=who)
    assert await owned.aget_session_state(SESSION) == {"secret": 1}
    assert len(live_sessions) == 0


async def test_a_foreign_user_cannot_run_on_a_session_that_is_live() -> None:
    inside, over = asyncio.Event(), asyncio.Event()

    async def hold(run_context: RunContext) -> None:
        run_context.session_state["secret"] = 2
        inside.set()
        await over.wait()

    agent = agent_with(hold, session_id=SESSION)
    run = asyncio.create_task(agent.arun("go", user_id="alice"))
    await inside.wait()
    with pytest.raises(SessionOwnershipError):
        await agent.arun("go", user_id="mallory")
    with pytest.raises(SessionOwnershipError):
        await agent.aget_session_state(user_id="mallory")
    over.set()
    await run


@pytest.mark.parametrize("touch", [False, True])
async def test_a_tool_of_the_session_is_no_way_in_for_a_foreign_user(touch: bool) -> None:
    async def break_in(run_context: RunContext) -> None:
        if touch:
            run_context.session_state["touched"] = True
        with pytest.raises(SessionOwnershipError):
            await agent.aupdate_session_state({"stolen": True}, SESSION, user_id="mallory")
        with pytest.raises(SessionOwnershipError):
            await agent.arun("go", session_id=SESSION, user_id="mallory")

    def break_in_sync(run_context: RunContext) -> None:
        if touch:
            run_context.session_state["touched"] = True
        with pytest.raises(SessionOwnershipError):
            agent.update_session_state({"stolen": True}, SESSION, user_id="mallory")
        assert not portal.running_here

    agent = agent_with(break_in, break_in_sync, session_id=SESSION)
    output = await agent.arun("go", user_id="alice")
    assert [execution.result for execution in output.tools] == ["", ""]
    assert output.session_state == ({"touched": True} if touch else {})


async def test_two_users_without_a_session_id_have_two_sessions() -> None:
    agent = agent_with(note_sync, session_state={"notes": [], "owner": "?"})
    first = await agent.arun("go", user_id="alice")
    second = await agent.arun("go", user_id="bob")
    assert first.session_id != second.session_id
    assert [note[0] for note in (await agent.aget_session_state(user_id="alice"))["notes"]] == ["alice"]
    assert [note[0] for note in (await agent.aget_session_state(user_id="bob"))["notes"]] == ["bob"]


# Data that the definition, the caller, the run and its reader have in common.


def remember(run_context: RunContext) -> str:
    run_context.metadata["seen"]["users"].append(run_context.user_id)
    return "noted"


def test_what_a_tool_writes_into_the_metadata_belongs_to_its_run() -> None:
    given: dict[str, Any] = {"mine": [1]}
    model = FunctionModel(lambda r: "done" if r.messages[-1].role == "tool" else tool_call("remember"))
    agent = Agent(model=model, tools=[remember], metadata={"seen": {"users": []}}, db=InMemoryDb())
    told = [agent.run("x", user_id=user, metadata=given).metadata for user in ("ann", "bob")]
    assert told == [{"seen": {"users": [user]}, "mine": [1]} for user in ("ann", "bob")]
    assert agent.metadata == {"seen": {"users": []}}
    told[1]["mine"].append(2)
    assert given == {"mine": [1]}


def spoil(value: Any) -> None:
    if isinstance(value, dict):
        for item in list(value.values()):
            spoil(item)
        value["SPOILT"] = 1
    elif isinstance(value, list):
        value.append("SPOILT")


async def test_a_reader_that_changes_its_events_changes_no_record() -> None:
    called: list[Any] = []

    def pay(run_context: RunContext, to: dict[str, Any]) -> dict[str, Any]:
        called.append(to)
        run_context.session_state["paid"] = [to]
        return to

    model = FunctionModel(
        lambda r: "done" if r.messages[-1].role == "tool" else tool_call("pay", to={"names": ["bob"]})
    )
    agent = Agent(
        model=model, tools=[pay], metadata={"m": [1]}, db=InMemoryDb(), session_id="s", store_events=True
    )
    run_id = None
    async with agent.arun("x", stream=True, stream_events=True) as stream:
        async for event in stream:
            run_id = event.run_id
            for name in ("metadata", "session_state", "patch", "metrics"):
                spoil(getattr(event, name, None))
            if isinstance(execution := getattr(event, "tool", None), ToolExecution):
                spoil(execution.tool_args)
                execution.result = "SPOILT"
    assert run_id is not None
    stored = await agent.aget_run_output(run_id)
    assert called == [{"names": ["bob"]}]
    assert stored is not None
    assert "SPOILT" not in stored.to_json()
    assert stored.events
    assert "SPOILT" not in str(await agent.aget_session_state())
    assert agent.metadata == {"m": [1]}
