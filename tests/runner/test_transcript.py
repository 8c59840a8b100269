"""What was said and done in a run is known to the next one of its session, and nothing else is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from pydantic import BaseModel

from kern import Agent, Team, tool
from kern.db.sqlite import SqliteDb
from kern.errors import (
    CheckError,
    HookError,
    InputCheckError,
    KernError,
    ModelBehaviorError,
    ModelServerError,
    OutputCheckError,
)
from kern.messages import Image, Message, ToolCall
from kern.models.base import ModelRequest, ModelResponse
from kern.run import RunOutput
from kern.runner.transcript import transcript_of
from kern.runtime.interrupted import NOT_DECIDED
from kern.runtime.request import RunInput
from kern.testing import FunctionModel, ScriptedModel, tool_call


def prompt(request: ModelRequest) -> list[tuple[str, str | None]]:
    return [(m.role, m.content) for m in request.messages if m.role != "system"]


def is_conversation(messages: Sequence[Message]) -> bool:
    """Every call is followed by its result, and no result stands without its call."""
    open_calls: list[str] = []
    for message in messages:
        if message.role == "tool":
            if not open_calls or message.tool_call_id != open_calls.pop(0):
                return False
        elif open_calls:
            return False
        else:
            open_calls = [call.id for call in message.tool_calls]
    return not open_calls


def chat(messages: Sequence[Message]) -> list[str]:
    return [f"{m.role}: {m.content}" for m in messages]


def charge() -> str:
    """Charge the card."""
    return "receipt R-1"


def failing(*answers: object) -> ScriptedModel:
    return ScriptedModel([*answers, ModelServerError("broken", status=500), "next"])


# Runs that were cut short


async def test_a_run_that_failed_after_a_call_stands_as_question_call_result_and_ending() -> None:
    model = failing(ModelResponse.of("One moment.", tool_call("charge")))
    agent = Agent(model=model, tools=[charge], add_history_to_context=True)
    with pytest.raises(ModelServerError):
        await agent.arun("Charge me")
    await agent.arun("And?")
    assert prompt(model.requests[-1]) == [
        ("user", "Charge me"),
        ("assistant", "One moment."),
        ("tool", "receipt R-1"),
        ("assistant", "[The run failed with ModelServerError before its answer was complete.]"),
        ("user", "And?"),
    ]
    assert is_conversation(model.requests[-1].messages)


async def test_nothing_of_it_enters_a_prompt_without_history() -> None:
    model = failing(tool_call("charge"))
    agent = Agent(model=model, tools=[charge])
    with pytest.raises(ModelServerError):
        await agent.arun("Charge me")
    await agent.arun("And?")
    assert prompt(model.requests[-1]) == [("user", "And?")]


@pytest.mark.parametrize("way", ["cancel_run", "task", "timeout"])
async def test_a_call_that_ended_beside_one_that_did_not_is_told_with_its_result(way: str) -> None:
    charged = asyncio.Event()

    async def pay() -> str:
        """Pay."""
        charged.set()
        return "receipt R-1"

    async def wait() -> str:
        """Wait."""
        await asyncio.sleep(60)
        return "never"

    model = ScriptedModel([ModelResponse.of(None, tool_call("pay"), tool_call("wait")), "next"])
    timeout = 0.2 if way == "timeout" else None
    agent = Agent(model=model, tools=[pay, wait], add_history_to_context=True, session_id="s")
    run = asyncio.ensure_future(agent.arun("Pay and wait", run_id="r", timeout=timeout))
    await charged.wait()
    if way == "cancel_run":
        await agent.acancel_run("r")
    elif way == "task":
        run.cancel()
    await asyncio.wait([run])
    await agent.arun("And?")
    seen = model.requests[-1].messages
    assert is_conversation(seen)
    assert [m.content for m in seen if m.role == "tool"] == [
        "receipt R-1",
        "[The run ended before this call did; it may have acted all the same.]",
    ]
    assert seen[-2].content is not None
    assert ("failed with RunDeadlineExceeded" if way == "timeout" else "was cancelled") in seen[-2].content


async def test_a_run_that_failed_before_any_text_or_call_leaves_nothing_and_does_not_count() -> None:
    model = ScriptedModel(["one", *[ModelServerError("broken", status=500)] * 3, "two", "three"])
    agent = Agent(model=model, add_history_to_context=True, num_history_runs=1, read_chat_history=True)
    await agent.arun("q1")
    for _ in range(3):
        with pytest.raises(ModelServerError):
            await agent.arun("lost")
    await agent.arun("q2")
    assert prompt(model.requests[-1]) == [("user", "q1"), ("assistant", "one"), ("user", "q2")]
    said = chat(await agent.aget_chat_history())
    assert said == ["user: q1", "assistant: one", "user: q2", "assistant: two"]


async def test_an_introduction_is_said_again_if_the_first_run_left_nothing() -> None:
    model = ScriptedModel([ModelServerError("broken", status=500), "one", "two"])
    agent = Agent(model=model, add_history_to_context=True, introduction="I am Kim.")
    with pytest.raises(ModelServerError):
        await agent.arun("lost")
    await agent.arun("q1")
    await agent.arun("q2")
    seen = [("assistant", "I am Kim."), ("user", "q1"), ("assistant", "one"), ("user", "q2")]
    assert prompt(model.requests[-1]) == seen
    assert chat(await agent.aget_chat_history())[:2] == ["assistant: I am Kim.", "user: q1"]


async def test_a_run_that_waits_for_a_person_is_known_to_one_beside_it() -> None:
    @tool(requires_confirmation=True)
    def send() -> str:
        """Send it."""
        return "sent"

    first = ModelResponse.of(None, tool_call("charge"), tool_call("send"))
    model = ScriptedModel([first, "It waits.", "Sent."])
    agent = Agent(model=model, tools=[charge, send], add_history_to_context=True, session_id="s")
    paused = await agent.arun("Charge me and send it")
    await agent.arun("What is going on?")
    seen = model.requests[-1].messages
    assert is_conversation(seen)
    assert [m.content for m in seen if m.role == "tool"] == ["receipt R-1", NOT_DECIDED]
    paused.requirements[0].confirm()
    done = await agent.acontinue_run(paused)
    assert done.content == "Sent."


@pytest.mark.parametrize("given_up", [False, True])
async def test_what_a_member_did_before_a_pause_is_known_beside_it_and_when_it_is_given_up(
    given_up: bool, tmp_path: Path
) -> None:
    @tool(requires_confirmation=True)
    def send() -> str:
        """Send it."""
        return "sent"

    def team(*answers: object, clerk: Sequence[object] = ()) -> Team:
        script = ScriptedModel(clerk)
        return Team(
            [Agent(name="clerk", model=script, tools=[charge, send])],
            model=ScriptedModel(answers),
            db=SqliteDb(tmp_path / "kern.db"),
            session_id="s",
            add_history_to_context=True,
        )

    delegation = tool_call("delegate_task_to_member", member_id="clerk", task="charge and send")
    work = [tool_call("charge"), tool_call("send")]
    paused = await team(delegation, clerk=work).arun("Charge me and send it")
    if given_up:
        await team().acancel_run(paused.run_id)
    beside = team("It waits.")
    await beside.arun("What is going on?")
    assert isinstance(beside.model, ScriptedModel)
    seen = beside.model.requests[-1].messages
    assert is_conversation([m for m in seen if m.role != "system"])
    (result,) = [m.content or "" for m in seen if m.role == "tool"]
    assert result.startswith("clerk waits for a person and has not answered.")
    assert "- charge: receipt R-1" in result
    assert "send" not in result
    if not given_up:
        paused.requirements[0].confirm()
        done = await team("All done.", clerk=["Sent."]).acontinue_run(paused)
        assert done.content == "All done."
        assert [m.role for m in done.messages] == ["system", "user", "assistant", "tool", "assistant"]


async def test_reading_the_chat_tells_how_a_run_ended_and_what_it_had_done() -> None:
    model = failing(tool_call("charge"))
    agent = Agent(model=model, tools=[charge], read_chat_history=True)
    with pytest.raises(ModelServerError):
        await agent.arun("Charge me")
    reader = ScriptedModel([tool_call("read_chat_history"), "I see"])
    agent.model = reader
    output = await agent.arun("What have you done?")
    seen = json.loads(output.tools[0].result or "")
    assert [line["role"] for line in seen] == ["user", "assistant"]
    assert "failed with ModelServerError" in seen[1]["content"]
    assert "charge: receipt R-1" in seen[1]["content"]


# What a check refused


class TooRude(OutputCheckError):
    """A check's own class."""


@pytest.mark.parametrize("error", [OutputCheckError, TooRude, CheckError])
@pytest.mark.parametrize("stream", [False, True])
async def test_of_a_run_whose_answer_was_refused_only_calls_and_results_remain(
    error: type[CheckError], stream: bool
) -> None:
    refusing = [True]

    def check(run_output: RunOutput) -> None:
        if refusing:
            refusing.pop()
            raise error("no")

    model = ScriptedModel([tool_call("charge"), "something rude", "fine"])
    agent = Agent(model=model, tools=[charge], post_hooks=[check], add_history_to_context=True)
    with pytest.raises(error):
        if stream:
            async with agent.arun("secret question", stream=True) as events:
                [event async for event in events]
        else:
            await agent.arun("secret question")
    await agent.arun("And?")
    seen = model.requests[-1].messages
    assert is_conversation(seen)
    assert any(m.content == "receipt R-1" for m in seen)
    assert not any("rude" in (m.content or "") or "secret" in (m.content or "") for m in seen)
    assert seen[0].role == "user"
    assert chat(await agent.aget_chat_history()) == ["user: And?", "assistant: fine"]


async def test_refused_input_and_refused_text_without_calls_leave_nothing() -> None:
    def check_input(run_input: RunInput) -> None:
        if "bomb" in run_input.input_content:
            raise InputCheckError("no")

    def check_output(run_output: RunOutput) -> None:
        if "rude" in run_output.content:
            raise OutputCheckError("no")

    model = ScriptedModel(["rude", "fine"])
    agent = Agent(
        model=model,
        pre_hooks=[check_input],
        post_hooks=[check_output],
        add_history_to_context=True,
        read_chat_history=True,
        num_history_runs=1,
    )
    for text in ("a bomb", "be rude"):
        with pytest.raises(CheckError):
            await agent.arun(text)
    await agent.arun("hello")
    assert prompt(model.requests[-1]) == [("user", "hello")]
    assert chat(await agent.aget_chat_history()) == ["user: hello", "assistant: fine"]
    assert chat(await agent.aget_session_messages()) == ["user: hello", "assistant: fine"]


async def test_a_text_that_a_hook_put_in_the_place_of_the_answer_is_all_that_is_remembered() -> None:
    def mask(run_output: RunOutput) -> None:
        run_output.content = run_output.content.replace("4711", "****")

    model = ScriptedModel([ModelResponse.of("The code is 4711.", tool_call("charge")), "Yes, 4711.", "ok"])
    agent = Agent(model=model, tools=[charge], post_hooks=[mask], add_history_to_context=True)
    await agent.arun("Code?")
    await agent.arun("Again?")
    assert not any("4711" in (m.content or "") for m in model.requests[-1].messages)
    assert not any("4711" in line for line in chat(await agent.aget_chat_history()))


async def test_an_answer_after_which_a_hook_broke_is_remembered() -> None:
    def broken(run_output: RunOutput) -> None:
        if run_output.content == "one":
            raise ZeroDivisionError

    model = ScriptedModel(["one", "two"])
    agent = Agent(model=model, post_hooks=[broken], add_history_to_context=True)
    with pytest.raises(HookError):
        await agent.arun("q1")
    await agent.arun("q2")
    ending = "[The run failed with HookError before its answer was complete.]"
    assert prompt(model.requests[-1])[:2] == [("user", "q1"), ("assistant", f"one\n\n{ending}")]
    assert chat(await agent.aget_chat_history())[:2] == ["user: q1", "assistant: one"]


# Answers that are no text of the model's


@tool(stop_after_tool_call=True)
def add_up() -> str:
    """Add up."""
    return "The total is 7."


async def test_an_answer_by_a_tool_is_told_to_the_model_once_and_as_an_answer() -> None:
    model = ScriptedModel([ModelResponse.of("Let me see.", tool_call("add_up")), "next"])
    agent = Agent(model=model, tools=[add_up], add_history_to_context=True)
    await agent.arun("Total?")
    await agent.arun("And?")
    seen = model.requests[-1].messages
    assert is_conversation(seen)
    assert [m.role for m in seen] == ["user", "assistant", "tool", "assistant", "user"]
    assert [m.role for m in seen if "total is 7" in (m.content or "")] == ["assistant"]


async def test_an_answer_by_a_tool_survives_the_trimming_of_tool_calls() -> None:
    model = ScriptedModel([tool_call("add_up"), "next"])
    agent = Agent(model=model, tools=[add_up], add_history_to_context=True, max_tool_calls_from_history=0)
    await agent.arun("Total?")
    await agent.arun("And?")
    seen = [("user", "Total?"), ("assistant", "The total is 7."), ("user", "And?")]
    assert prompt(model.requests[-1]) == seen


async def test_a_routed_members_structured_answer_is_in_the_chat_history_as_json() -> None:
    class Total(BaseModel):
        total: int

    member = Agent(name="b", model=ScriptedModel(['{"total": 7}']), output_schema=Total)
    leader = ScriptedModel([tool_call("delegate_task_to_member", member_id="b", task="add"), "next"])
    team = Team([member], model=leader, mode="route", add_history_to_context=True)
    output = await team.arun("Total?")
    assert output.content == Total(total=7)
    assert chat(await team.aget_chat_history()) == ["user: Total?", 'assistant: {"total":7}']
    await team.arun("And?")
    assert sum("7" in (m.content or "") for m in leader.requests[-1].messages) == 1


async def test_an_answer_of_a_picture_is_in_the_chat_history() -> None:
    def draw() -> object:
        """Draw."""
        return Image(content=b"png", name="a.png")

    model = ScriptedModel([tool_call("draw"), "Here."])
    agent = Agent(model=model, tools=[draw])
    await agent.arun("Draw")
    (_, answer) = await agent.aget_chat_history()
    assert (answer.content, [image.name for image in answer.images]) == ("Here.", ["a.png"])


# What the application put in


async def test_dependencies_and_examples_stand_once_in_a_prompt_and_never_in_the_chat() -> None:
    model = FunctionModel(lambda request: "ok")
    examples = [
        Message("user", "like this", images=[Image(url="http://x.test/a.png")]),
        Message("assistant", None, tool_calls=[ToolCall("e1", "look", "{}")]),
        Message("tool", "seen", tool_call_id="e1", tool_name="look"),
        "and this",
    ]
    agent = Agent(
        model=model,
        additional_input=examples,
        dependencies={"token": "T-1"},
        add_dependencies_to_context=True,
        add_history_to_context=True,
    )
    question = Message("user", images=[Image(url="http://x.test/q.png")], name="ann")
    for asked in (
        "q1",
        question,
        [Message("user", "q3a"), Message("assistant", "so"), Message("user", "q3b")],
    ):
        await agent.arun(asked)
    await agent.arun("q4")
    seen = model.requests[-1].messages
    texts = [m.content or "" for m in seen]
    assert sum("T-1" in text for text in texts) == 1
    assert [texts.count(text) for text in ("like this", "seen", "and this")] == [1, 1, 1]
    said = [m for m in seen[4:] if m.role == "user"]
    assert [m.content for m in said[:-1]] == ["q1", None, "q3a", "q3b"]
    assert [image.url for image in said[1].images] == ["http://x.test/q.png"]
    assert said[1].name == "ann"
    assert chat(await agent.aget_chat_history()) == [
        *("user: q1", "assistant: ok", "user: None", "assistant: ok"),
        *("user: q3a", "assistant: so", "user: q3b", "assistant: ok", "user: q4", "assistant: ok"),
    ]
    assert all(m.said is None for m in examples if isinstance(m, Message))


async def test_dependencies_stand_with_the_last_words_of_the_user_and_not_with_an_answers_beginning() -> None:
    model = FunctionModel(lambda request: "ok")
    agent = Agent(model=model, dependencies={"token": "T-1"}, add_dependencies_to_context=True)
    await agent.arun([Message("user", "q1"), Message("assistant", "It begins")])
    asked, begun = model.requests[0].messages
    assert "T-1" in (asked.content or "")
    assert begun.content == "It begins"
    assert chat(await agent.aget_chat_history()) == ["user: q1", "assistant: ok"]


async def test_a_correction_and_the_answer_that_it_corrects_are_not_told_to_later_runs() -> None:
    class Total(BaseModel):
        total: int

    model = ScriptedModel(["none", tool_call("charge"), '{"total": "x"}', '{"total": 1}', '{"total": 2}'])
    agent = Agent(model=model, tools=[charge], output_schema=Total, add_history_to_context=True)
    await agent.arun("q1")
    await agent.arun("q2")
    assert prompt(model.requests[-1]) == [
        *(("user", "q1"), ("assistant", None), ("tool", "receipt R-1")),
        *(("assistant", '{"total": 1}'), ("user", "q2")),
    ]


async def test_a_run_that_never_answered_well_leaves_nothing() -> None:
    class Total(BaseModel):
        total: int

    model = ScriptedModel([*["no number"] * 4, '{"total": 1}'])
    agent = Agent(model=model, output_schema=Total, add_history_to_context=True)
    with pytest.raises(ModelBehaviorError):
        await agent.arun("q1")
    await agent.arun("q2")
    assert prompt(model.requests[-1]) == [("user", "q2")]


async def test_tasks_that_were_still_open_are_not_the_persons_words() -> None:
    leader = ScriptedModel(
        [
            tool_call("create_task", title="t"),
            "Done?",
            tool_call("complete_task", task_id=1, result="r"),
            "Done.",
            "next",
        ]
    )
    team = Team(
        [Agent(name="b", model=ScriptedModel([]))], model=leader, mode="tasks", add_history_to_context=True
    )
    await team.arun("Work")
    assert chat(await team.aget_chat_history()) == ["user: Work", "assistant: Done."]
    await team.arun("And?")
    users = [m.content for m in leader.requests[-1].messages if m.role == "user"]
    assert users == ["Work", "And?"]


# Rows of version 0.1, which tell less


async def test_rows_of_version_0_1_are_read() -> None:
    """As ff660b3 wrote them: nothing says what was put in, or what a check refused."""

    def row(error: str, *messages: Message) -> RunOutput:
        return RunOutput.from_dict(
            {
                "run_id": "r",
                "session_id": "s",
                "status": "ERROR",
                "error_type": error,
                "messages": [message.to_dict() for message in messages],
                "tools": [{"tool_call_id": "c1", "tool_name": "charge", "result": "receipt R-1"}],
            }
        )

    call = Message("assistant", tool_calls=[ToolCall("c1", "charge", "{}"), ToolCall("c2", "charge", "{}")])
    failed = transcript_of(row("ModelServerError", Message("user", "q"), call))
    assert is_conversation(failed.prompt())
    assert [m.content for m in failed.prompt() if m.role == "tool"] == [
        "receipt R-1",
        "[This call was not carried out.]",
    ]
    refused = transcript_of(row("OutputCheckError", Message("user", "q"), Message("assistant", "rude")))
    assert not refused.belongs_to_history


async def test_a_failing_run_raises_one_of_our_errors_and_is_told_by_its_name() -> None:
    def broken(request: ModelRequest) -> ModelResponse:
        raise ZeroDivisionError("oops: sk-secret")

    agent = Agent(model=FunctionModel(broken), add_history_to_context=True, tools=[charge])
    with pytest.raises(KernError):
        await agent.arun("q")
    assert await agent.aget_chat_history() == []
