"""A value in an output that is not JSON fails its run with one of Kern's errors; the rest is stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, model_validator

from kern import Agent, RunContext, RunStatus, Team
from kern.db.sqlite import SqliteDb
from kern.errors import HookError, UsageError
from kern.run import RunOutput, TeamRunOutput
from kern.testing import ScriptedModel, tool_call


class Plain:
    """Not JSON."""


def put(run_context: RunContext) -> str:
    """Put something into the metadata."""
    run_context.metadata["x"] = Plain()
    run_context.session_state["put"] = True
    return "put"


class Opened(BaseModel):
    model_config = ConfigDict(extra="allow")
    name: str

    @model_validator(mode="after")
    def open(self) -> Opened:
        self.connection = Plain()
        return self


def of_a_tool(**options: Any) -> Agent:
    return Agent(model=ScriptedModel([tool_call("put"), "done"]), tools=[put], **options)


def of_a_schema(**options: Any) -> Agent:
    return Agent(model=ScriptedModel(['{"name": "a"}']), output_schema=Opened, **options)


def of_a_tool_of_a_member(**options: Any) -> Team:
    leader = ScriptedModel([tool_call("delegate_task_to_member", member_id="b", task="x"), "done"])
    return Team([of_a_tool(id="b")], model=leader, **options)


@pytest.mark.parametrize("store_events", [False, True])
@pytest.mark.parametrize("make", [of_a_tool, of_a_schema, of_a_tool_of_a_member])
async def test_a_value_that_is_not_json_fails_the_run_which_is_stored(
    make: Callable[..., Agent | Team], store_events: bool, tmp_path: Any
) -> None:
    runner = make(
        db=SqliteDb(tmp_path / "kern.db"), session_id="s", metadata={"a": 1}, store_events=store_events
    )
    with pytest.raises(UsageError, match=r"cannot be written as JSON.*Plain") as caught:
        await runner.arun("x", run_id="r")
    kept = caught.value.run_output
    if make is not of_a_schema:
        assert isinstance(kept, RunOutput | TeamRunOutput)
        assert isinstance(kept.metadata["x"], Plain)
        assert await runner.aget_session_state() == {"put": True}
    stored = await runner.aget_run_output("r")
    assert stored is not None
    assert stored.status is RunStatus.error
    assert "cannot be written as JSON" in (stored.error or "")
    runner.model = ScriptedModel(["again"])
    runner.output_schema = None
    assert (await runner.arun("y")).status is RunStatus.completed


async def test_a_leader_is_told_that_its_member_has_made_such_a_value(tmp_path: Any) -> None:
    leader = ScriptedModel([tool_call("delegate_task_to_member", member_id="b", task="x"), "done"])
    db = SqliteDb(tmp_path / "kern.db")
    team = Team([of_a_schema(id="b")], model=leader, db=db, store_member_responses=True, store_events=True)
    output = await team.arun("x", run_id="r")
    assert "output_schema Opened: what it made of the answer cannot" in (output.tools[0].result or "")
    stored = await team.aget_run_output("r")
    assert stored is not None
    assert stored.content == "done"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_hook_that_sets_an_answer_that_is_not_json_is_named(stream: bool, tmp_path: Any) -> None:
    def replace_it(run_output: RunOutput[Any]) -> None:
        run_output.content = Plain()

    agent = Agent(model=ScriptedModel(["ok"]), post_hooks=[replace_it], db=SqliteDb(tmp_path / "kern.db"))
    with pytest.raises(HookError, match=r"replace_it has set run_output.content to a value of type Plain"):
        if stream:
            _ = [event async for event in agent.arun("x", run_id="r", stream=True, stream_events=True)]
        else:
            await agent.arun("x", run_id="r")
    stored = await agent.aget_run_output("r")
    assert stored is not None
    assert (stored.status, stored.content) == (RunStatus.error, "ok")


async def test_a_run_in_a_tool_that_fails_for_such_a_value_does_not_fail_the_run_around_it(
    tmp_path: Any,
) -> None:
    async def ask(run_context: RunContext) -> str:
        try:
            await of_a_schema().arun("x", run_id="inner", session_id="s")
        except UsageError:
            return "failed"
        return "done"

    agent = Agent(
        model=ScriptedModel([tool_call("ask"), "done"]),
        tools=[ask],
        db=SqliteDb(tmp_path / "kern.db"),
        session_id="s",
    )
    output = await agent.arun("x")
    assert (output.content, output.tools[0].result) == ("done", "failed")
