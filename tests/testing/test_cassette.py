"""Runs that are recorded to a file, replayed from it, and forked."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import pydantic
import pytest

from kern import Agent, RunContext, RunStatus, StopAgentRun, Team, tool
from kern.db import Db, InMemoryDb
from kern.errors import (
    InputCheckError,
    ModelRateLimitError,
    ReplayMismatch,
    UsageError,
    UsageLimitExceeded,
)
from kern.messages import ProviderCall
from kern.models.anthropic import AnthropicMessages
from kern.models.base import DeltaSink, Model, ModelRequest, ModelResponse
from kern.models.bedrock import BedrockConverse
from kern.models.google import Gemini
from kern.models.openai import OpenAIChat, OpenAIResponses
from kern.run.output import AnyRunOutput
from kern.testing import Answer, ModelServer, ScriptedModel, cassette, fork, record, replay, tool_call
from kern.usage import UsageLimits
from tests.durable.desk import Ledger, desk, faults


@pytest.fixture
def tape(tmp_path: Path) -> Path:
    return tmp_path / "cassettes" / "run.json"


@pytest.fixture
def no_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing leaves the process."""

    def connect(*args: object) -> None:
        raise AssertionError(f"a connection to {args}")

    monkeypatch.setattr("socket.socket.connect", connect)


class Silent(Model):
    """A model that must not be asked."""

    id = "scripted"
    provider = "test"
    structured_output = "native"

    async def respond(self, request: ModelRequest, sink: DeltaSink) -> ModelResponse:
        raise AssertionError(f"asked: {request}")


def plain(output: AnyRunOutput) -> dict[str, Any]:
    """An output without what is measured anew in each life."""

    def without(data: Any) -> Any:
        if isinstance(data, dict):
            return {k: without(v) for k, v in data.items() if k not in ("duration", "time_to_first_token")}
        return [without(item) for item in data] if isinstance(data, list) else data

    cleaned: dict[str, Any] = without(json.loads(output.to_json()))
    return cleaned


async def essence(output: AnyRunOutput, db: Db | None, events: list[Any] | None = None) -> str:
    """All that a run leaves, in short."""
    assert db is not None
    changes = [
        (c.revision, c.patch.decode(), c.agent_path.decode(), c.tool, c.tool_call_id, c.created_at)
        for c in await db.load_changes("s")
    ]
    rows = sorted((row.run_id, row.status) for row in await db.load_runs("s", top_level=False))
    told = [[event.event, event.source.run_id, event.seq] for event in events or ()]
    return hashlib.sha256(json.dumps([plain(output), changes, rows, told]).encode()).hexdigest()


async def test_fifty_strict_replays_of_a_concurrent_team_are_one_run_and_leave_the_process_never(
    tmp_path: Path, tape: Path, no_sockets: None
) -> None:
    ledger, db = Ledger(tmp_path / "ledger"), InMemoryDb()
    output = await record(desk(ledger, db), "go", tape, session_id="s")
    assert faults(ledger, output.session_state or {}, output) == []
    recorded, lines = await essence(output, db), ledger.lines()
    hashes = set()
    for _ in range(50):
        with cassette(tape) as played:
            again = await desk(ledger).arun("go", session_id="s")
        hashes.add(await essence(again, played.db))
    assert hashes == {recorded}
    assert ledger.lines() == lines, "no model was asked, and no tool was called"


async def test_a_streamed_run_is_replayed_with_its_pieces_and_the_same_events_each_time(
    tmp_path: Path, tape: Path
) -> None:
    ledger = Ledger(tmp_path / "ledger")

    async def stream(db: Db | None) -> tuple[str, list[Any]]:
        events = []
        async with desk(ledger, db).arun(
            "go", stream=True, stream_events=True, yield_run_output=True, session_id="s"
        ) as items:
            async for item in items:
                events.append(item)
        output = events.pop()
        return await essence(output, db, events), events

    with cassette(tape, "record"):
        _, told = await stream(InMemoryDb())
    lines, seen = ledger.lines(), set()
    for _ in range(10):
        with cassette(tape) as played:
            digest, again = await stream(played.db)
        seen.add(digest)
        assert sorted(e.event for e in again) == sorted(e.event for e in told)
        assert [e.content for e in again if e.event == "TeamRunContent"] == [
            e.content for e in told if e.event == "TeamRunContent"
        ]
    assert len(seen) == 1
    assert ledger.lines() == lines


async def test_a_changed_prompt_fails_with_a_readable_difference(tmp_path: Path, tape: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    await record(desk(ledger), "go", tape)
    with pytest.raises(ReplayMismatch) as raised:
        await replay(desk(ledger, instructions="Be brief."), tape)
    shown = str(raised.value)
    assert "the request of desk differs from the recording" in shown
    assert "\n+Be brief.\n" in shown
    assert "-Be brief" not in shown


async def test_a_changed_tool_of_a_member_fails_as_well(tmp_path: Path, tape: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    await record(desk(ledger), "go", tape)
    team = desk(ledger)
    bob = team.members[1]
    bob.instructions = "Hurry."
    with pytest.raises(ReplayMismatch, match=r"the request of desk > bob differs(.|\n)*\+Hurry\."):
        await replay(team, tape)


async def test_a_fork_does_only_what_comes_after_it_for_real(tmp_path: Path, tape: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    await record(desk(ledger), "go", tape)
    known = len(ledger.lines())
    output = await fork(desk(ledger, instructions="Be brief."), tape, at=1)
    done = [words[:3] for words in ledger.lines()[known:] if words[0] in ("model", "tool")]
    assert [(words[0], words[1]) for words in done] == [
        ("model", "lead"),
        ("tool", "publish"),
        ("model", "lead"),
    ]
    assert output.session_state is not None
    assert output.session_state["n"] == 106
    assert "Be brief." in (output.messages[0].content or "")


async def test_a_fork_at_a_members_turn_asks_another_model(tape: Path) -> None:
    agent = Agent(id="a", model=ScriptedModel([tool_call("look", at="sea"), "blue"]), tools=[_look])
    output = await record(agent, "Look", tape)
    other = ScriptedModel(["green"])
    changed = await fork(agent, tape, at=f"{output.run_id}/model/1", model=other)
    assert (output.content, changed.content) == ("blue", "green")
    assert other.requests[0].messages[-1].content == "seen sea"
    with pytest.raises(UsageError, match=r"at='nowhere': the recorded run has no such step; .*model/0"):
        await fork(agent, tape, at="nowhere")


def _look(at: str) -> str:
    """Look."""
    return f"seen {at}"


_look.__name__ = "look"


async def test_pauses_are_recorded_with_what_comes_after_them(tape: Path) -> None:
    @tool(requires_confirmation=True)
    def pay(amount: int, run_context: RunContext) -> str:
        """Pay."""
        run_context.session_state["paid"] = amount
        paid.append(amount)
        return f"paid {amount}"

    async def story(model: Model) -> AnyRunOutput:
        member = Agent(id="payer", name="payer", role="pays", model=model, tools=[pay])
        lead = (
            model
            if isinstance(model, Silent)
            else ScriptedModel(
                [tool_call("delegate_task_to_member", member_id="payer", task="pay 3"), "All is paid."]
            )
        )
        team = Team([member], id="t", model=lead, db=InMemoryDb())
        output = await team.arun("Pay", session_id="s")
        assert output.status is RunStatus.paused
        output.requirements[0].confirm()
        return await team.acontinue_run(output)

    paid: list[int] = []
    with cassette(tape, "record"):
        first = await story(ScriptedModel([tool_call("pay", amount=3), "Paid."]))
    with cassette(tape):
        again = await story(Silent())
    assert paid == [3]
    assert first.session_state == again.session_state == {"paid": 3}
    one, two = plain(first), plain(again)
    for part in (one, two):  # the model objects differ in name only
        part.pop("session_id")
    assert one["content"] == two["content"] == "All is paid."
    assert one["run_id"] == two["run_id"]


async def test_errors_of_models_retries_and_limits_are_on_record(tape: Path) -> None:
    limit = ModelRateLimitError("slow down", status=429, retry_after=0.0)
    script = ScriptedModel([limit, tool_call("look", at="x"), tool_call("look", at="y"), "never"])

    def agent(model: Model) -> Agent:
        limits = UsageLimits(requests=3)
        return Agent(
            id="a", model=model, tools=[_look], retries=1, delay_between_retries=0, usage_limits=limits
        )

    with pytest.raises(UsageLimitExceeded) as first:
        await record(agent(script), "Look", tape)
    with pytest.raises(UsageLimitExceeded) as again:
        await replay(agent(Silent()), tape)
    assert str(first.value) == str(again.value)
    assert again.value.run_output is not None
    assert first.value.run_output is not None
    assert again.value.run_output.tools[0].result == first.value.run_output.tools[0].result == "seen x"


class Place(pydantic.BaseModel):
    name: str
    rank: int


async def test_structured_answers_and_hooks_are_replayed_and_the_hooks_not_called(tape: Path) -> None:
    called = []

    def shorten(run_input: Any) -> None:
        called.append("before")
        run_input.input_content = "short"

    def raise_rank(run_output: Any) -> None:
        called.append("after")
        run_output.content = Place(name=run_output.content.name, rank=9)

    def agent(model: Model) -> Agent[Any]:
        return Agent(id="a", model=model, output_schema=Place, pre_hooks=[shorten], post_hooks=[raise_rank])

    first = await record(agent(ScriptedModel(['{"name": "Rome", "rank": 1}'])), "a long question", tape)
    again = await replay(agent(Silent()), tape)
    assert called == ["before", "after"]
    assert first.content == again.content == Place(name="Rome", rank=9)
    assert first.input == again.input == "short"
    assert plain(first)["messages"] == plain(again)["messages"]


async def test_a_check_that_has_refused_refuses_again_without_being_called(tape: Path) -> None:
    def refuse() -> None:
        called.append(1)
        raise InputCheckError("not that")

    called: list[int] = []
    agent = Agent(id="a", model=Silent(), pre_hooks=[refuse])
    for play in (lambda: record(agent, "x", tape), lambda: replay(agent, tape)):
        with pytest.raises(InputCheckError, match="not that"):
            await play()
    assert called == [1]


async def test_a_run_that_a_tool_starts_is_a_part_of_its_call(tape: Path) -> None:
    inner = Agent(id="inner", model=ScriptedModel(["from inside"]))

    async def ask_inner() -> str:
        """Ask."""
        return (await inner.arun("?")).content or ""

    def outer(model: Model) -> Agent:
        return Agent(id="outer", model=model, tools=[ask_inner])

    await record(outer(ScriptedModel([tool_call("ask_inner"), "done"])), "go", tape)
    again = await replay(outer(Silent()), tape)
    assert again.tools[0].result == "from inside"
    assert len(json.loads(await asyncio.to_thread(tape.read_text))["runs"]) == 1


async def test_values_that_only_the_moment_knew_are_taken_from_the_record(tape: Path) -> None:
    asked = []

    def instructions(run_context: RunContext) -> str:
        asked.append(1)
        run_context.session_state["visits"] = run_context.session_state.get("visits", 0) + 1
        return f"visit {run_context.session_state['visits']}, token {len(asked)}"

    def agent(model: Model, db: Db) -> Agent:
        return Agent(
            id="a",
            db=db,
            model=model,
            instructions=instructions,
            additional_context="State: {visits}",
            session_state={"visits": 0},
            add_datetime_to_context=True,
            add_history_to_context=True,
        )

    db = InMemoryDb()
    await agent(ScriptedModel(["hi"]), db).arun("first", session_id="s")
    output = await record(agent(ScriptedModel(["hello"]), db), "second", tape, session_id="s")
    again = await replay(agent(Silent(), InMemoryDb()), tape, session_id="s")
    assert len(asked) == 2
    assert plain(output) == plain(again)
    assert "visit 2, token 2" in (again.messages[0].content or "")


async def test_a_generator_that_stops_the_run_is_replayed(tape: Path) -> None:
    def stop() -> str:
        """Stop."""
        raise StopAgentRun("that is all")

    output = await record(Agent(id="a", model=ScriptedModel([tool_call("stop")]), tools=[stop]), "x", tape)
    again = await replay(Agent(id="a", model=Silent(), tools=[stop]), tape)
    assert plain(output)["content"] == plain(again)["content"] == "that is all"


async def test_keys_of_the_environment_are_not_written(tape: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "sk-0123456789abcdef")
    await record(Agent(id="a", model=ScriptedModel(["my key is sk-0123456789abcdef"])), "x", tape)
    assert "0123456789" not in await asyncio.to_thread(tape.read_text)


@pytest.mark.parametrize("model", [OpenAIResponses, OpenAIChat, AnthropicMessages, Gemini, BedrockConverse])
async def test_a_replay_needs_no_key_of_a_provider(
    model: Any, tape: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "AWS_BEARER_TOKEN_BEDROCK"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("AWS_REGION", "us-east-1")

    def team(**access: Any) -> Team:
        member = Agent(id="m", model=model("a-model", **access))
        return Team([member], id="desk", model=model("a-model", **access))

    async with ModelServer([Answer("hello")]) as server:
        await record(team(api_key="k", base_url=server.base_url), "hi", tape)
    assert (await replay(team(), tape)).content == "hello"


async def test_what_is_left_on_record_or_lacking_is_told(tape: Path) -> None:
    def agent(*answers: Any) -> Agent:
        return Agent(id="a", model=ScriptedModel(answers))

    with cassette(tape, "record"):
        await agent("one").arun("1")
        await agent("two").arun("2")
    with (
        pytest.raises(ReplayMismatch, match=r"these recorded runs were not replayed: a \('2'\)"),
        cassette(tape),
    ):
        await agent().arun("1")
    with cassette(tape):
        await agent().arun("1")
        await agent().arun("2")
        with pytest.raises(ReplayMismatch, match="no run of 'a' is left in the recording"):
            await agent().arun("3")
    with (
        pytest.raises(ReplayMismatch, match="the input of a is 'other', but '1' in the recording"),
        cassette(tape),
    ):
        await agent().arun("other")
    with pytest.raises(UsageError, match="does not exist; record it"), cassette(tape.with_name("none")):
        pass
    with cassette(tape.with_name("new.json"), "auto"):
        await agent("three").arun("3")
    with cassette(tape.with_name("new.json"), "auto"):
        assert (await agent().arun("3")).content == "three"


def test_a_damaged_cassette_is_told(tape: Path) -> None:
    tape.parent.mkdir()
    tape.write_text('{"kern_cassette": 99, "runs": []}')
    with pytest.raises(UsageError, match="is not a cassette of this version of Kern"), cassette(tape):
        pass


@pytest.mark.parametrize("model", [OpenAIResponses, AnthropicMessages, Gemini])
async def test_arguments_and_calls_of_the_provider_are_replayed_as_they_were_streamed(
    model: type[OpenAIResponses | AnthropicMessages | Gemini], tmp_path: Path
) -> None:
    def look(place: str) -> str:
        """Look."""
        return place

    search = ProviderCall("", "web_search", '{"query": "weather"}')
    answers = [Answer(tool_calls=[tool_call("look", place="Rome")]), Answer("Rain.", provider_calls=[search])]
    async with ModelServer(answers) as server:

        async def told() -> list[tuple[str, Any]]:
            agent = Agent(id="a", model=model("m", base_url=server.base_url, api_key="any"), tools=[look])
            async with agent.arun("x", stream=True, stream_events=True) as stream:
                shown = ("content", "delta", "provider_call")
                return [(e.event, [str(getattr(e, name, None)) for name in shown]) async for e in stream]

        with cassette(tmp_path / "c.json", "record"):
            recorded = await told()
        with cassette(tmp_path / "c.json"):
            assert await told() == recorded
    names = {name for name, _ in recorded}
    assert {"ToolCallArgumentsDelta", "ProviderToolCallStarted", "ProviderToolCallCompleted"} <= names
