"""What a cassette's file holds: no keys, the form of the input, how a run broke off; and damage is told."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pydantic
import pytest

from kern import Agent, RunContext, tool
from kern.errors import KernError, ReplayMismatch, RunDeadlineExceeded, UsageError
from kern.messages import Image, Message
from kern.testing import FunctionModel, ScriptedModel, cassette, fork, record, replay, tool_call
from tests.clock import LONG, pass_time

KEY = "sk-verysecretvalue-0123456789abcdef"


@pytest.fixture
def tape(tmp_path: Path) -> Path:
    return tmp_path / "run.json"


def agent(*answers: Any, **more: Any) -> Agent:
    return Agent(id="a", model=ScriptedModel(answers), **more)


@tool
def leak(k: str) -> dict[str, str]:
    """Leak."""
    return {KEY: "x", "v": KEY}


@tool
def put(run_context: RunContext) -> str:
    """Put a key into the state."""
    run_context.session_state[f"{KEY}-2"] = KEY
    return "done"


def leaking(*answers: Any) -> Agent:
    state = {KEY: 1, "a": KEY}
    return agent(*answers, tools=[leak, put], session_state=state, instructions=f"use key {KEY}")


@pytest.mark.parametrize("there", [KEY, "another-key-of-this-environment", None])
async def test_a_key_is_nowhere_in_the_file_and_the_replay_matches_in_any_environment(
    there: str | None, tape: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MY_API_KEY", KEY)
    answers = (tool_call("leak", k=KEY), tool_call("put"), f"the key is {KEY}")
    with caplog.at_level(logging.WARNING, "kern"):
        output = await record(leaking(*answers), f"my key: {KEY}", tape)
    assert output.content == f"the key is {KEY}"
    assert "the recording contained the value of MY_API_KEY" in caplog.text
    assert KEY not in text_of(tape)
    if there is None:
        monkeypatch.delenv("MY_API_KEY")
    else:
        monkeypatch.setenv("MY_API_KEY", there)
    with cassette(tape):
        again = await leaking().arun(f"my key: {KEY}")
    assert again.content == "the key is ***MY_API_KEY***"
    with pytest.raises(ReplayMismatch, match="Be brief"):
        await replay(
            agent(tools=[leak, put], session_state={KEY: 1, "a": KEY}, instructions="Be brief"), tape
        )


async def test_a_key_that_the_pieces_of_a_stream_cut_in_two_is_not_written(
    tape: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_TOKEN", "two words of a long token")

    async def words(one: Agent) -> str:
        return "".join([event.content or "" async for event in one.arun("x", stream=True)])

    with cassette(tape, "record"):
        assert await words(agent("it is two words of a long token")) == "it is two words of a long token"
    assert "long" not in text_of(tape)
    with cassette(tape):
        assert await words(agent()) == "it is ***MY_TOKEN***"


async def test_what_is_no_key_by_the_end_of_its_name_or_is_short_stays_as_it_is(
    tape: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEYRING_PATH", "/home/ann/project/keys")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false-but-quite-long")
    monkeypatch.setenv("DB_PASSWORD", "project")
    monkeypatch.setenv("OTHER_SECRET", "/home/ann/project/src/and/more")
    said = "/home/ann/project/keys false-but-quite-long"
    await record(agent(said, instructions="Work in /home/ann/project/src"), "x", tape)
    assert (await replay(agent(instructions="Work in /home/ann/project/src"), tape)).content == said


def text_of(tape: Path) -> str:
    return tape.read_text()


def put_text(tape: Path, text: str) -> None:
    tape.write_text(text)


class Order(pydantic.BaseModel):
    count: int = 1
    what: str = "tea"


PICTURE = Image(content=b"\x89PNG\r\n\x1a\n1234")
INPUTS: dict[str, Any] = {
    "message": Message("user", "hi"),
    "message with a picture": Message("user", "hi", images=[PICTURE]),
    "picture alone": Message("user", images=[PICTURE]),
    "messages": [Message("user", "hi"), Message("assistant", "x"), Message("user", "y")],
    "model": Order(),
    "dict": {"role": "user", "content": "hi"},
    "list": [1, 2],
    "texts": ["a", "b"],
}


@pytest.mark.parametrize("input", INPUTS.values(), ids=INPUTS)
async def test_any_input_is_replayed_and_forked_as_it_was_given(input: Any, tape: Path) -> None:
    output = await record(agent("ok"), input, tape)
    again = await replay(agent(), tape)
    assert (again.content, again.input) == ("ok", output.input)
    assert (await fork(agent(), tape, at=0, model=ScriptedModel(["new"]))).content == "new"


async def test_a_stream_that_was_broken_off_is_replayed_as_far_as_it_came(tape: Path) -> None:
    async def events(one: Agent, *, to_end: bool) -> AsyncIterator[str]:
        async with one.arun("q", stream=True) as stream:
            async for event in stream:
                yield event.content or ""
                if not to_end:
                    break

    with cassette(tape, "record"):
        first = [text async for text in events(agent("one two three four"), to_end=False)]
    with cassette(tape):
        assert [text async for text in events(agent(), to_end=False)] == first
    heard = []
    with (
        cassette(tape),
        pytest.raises(ReplayMismatch, match="when the recorded run was cut short"),
    ):
        async for text in events(agent(), to_end=True):
            heard.append(text)
    assert heard[:1] == first


async def test_a_stream_that_was_left_open_says_where_its_recording_ends(tape: Path) -> None:
    with cassette(tape, "record"):
        left = agent("one two three four").arun("q", stream=True)
        await anext(aiter(left))
    await left.aclose()
    with cassette(tape), pytest.raises(ReplayMismatch, match="when the recorded run was cut short"):
        await agent().arun("q")


async def test_a_run_that_its_timeout_ended_says_where_its_recording_ends(tape: Path) -> None:
    async def never(*args: object) -> str:
        pass_time()
        await asyncio.Event().wait()
        return "late"

    @tool
    async def slow() -> str:
        """Wait."""
        return await never()

    for one in (Agent(id="a", model=FunctionModel(never)), agent(tool_call("slow"), tools=[slow])):
        with pytest.raises(RunDeadlineExceeded):
            await record(one, "q", tape, timeout=LONG)
        with pytest.raises(ReplayMismatch, match="when the recorded run was cut short"):
            await replay(agent(tools=one.tools), tape)


async def test_a_stream_asked_of_record_is_refused_and_the_file_stays(tape: Path) -> None:
    put_text(tape, "precious")
    with pytest.raises(UsageError, match="use cassette"):
        await record(agent("x"), "q", tape, stream=True)
    assert text_of(tape) == "precious"


def places(data: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for name, item in items:
        yield (*place, name)
        yield from places(item, (*place, name))


async def test_no_damage_of_a_file_is_anything_but_an_error_of_ours(
    tape: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kern.runtime.recorded_steps.STALL_SECONDS", 0.05)
    await record(agent(tool_call("put"), "done", tools=[put]), "q", tape)
    whole = json.loads(text_of(tape))
    for place in list(places(whole)):
        for odd in (None, -1, "x", [], {}, [[]]):
            damaged = copy.deepcopy(whole)
            at = damaged
            for name in place[:-1]:
                at = at[name]
            at[place[-1]] = odd
            put_text(tape, json.dumps(damaged))
            with suppress(KernError):
                await replay(agent(tools=[put]), tape)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('{"kern_cassette": 1, "runs": []}', "contains no run"),
        ('{"kern_cassette": 1, "runs": "ab"}', "runs: Input should be a valid"),
        ("[" * 100_000, "the file: Invalid JSON"),
        ("[1]", "the file: Input should be an object"),
        (
            '{"kern_cassette": 1, "runs": [{"run_id": "r", "runner": "a", "input": "q", "continued": false, '
            '"steps": [{"key": "k", "kind": "model", "asked": {"after": "x", "messages": []}}]}]}',
            r"runs\.0\.steps\.0\.asked\.after",
        ),
    ],
)
async def test_a_damaged_file_is_named_with_the_place(text: str, place: str, tape: Path) -> None:
    put_text(tape, text)
    for play in (replay(agent(), tape), fork(agent(), tape, at=0)):
        with pytest.raises(UsageError, match=place) as caught:
            await play
        assert str(tape) in str(caught.value)
