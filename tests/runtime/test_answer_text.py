"""`content` is all text that a run shows as its answer: the same streamed, stored, and without a stream."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from pydantic import BaseModel

from kern import Agent, RunStatus, StopAgentRun, Team, tool
from kern.db.in_memory import InMemoryDb
from kern.db.sqlite import SqliteDb
from kern.errors import (
    ModelConnectionError,
    ModelIncompleteError,
    ModelServerError,
    OutputCheckError,
    RunDeadlineExceeded,
)
from kern.messages import Message, ToolCall
from kern.models.base import DeltaSink, Model, ModelRequest, ModelResponse
from kern.models.openai import OpenAIChat
from kern.run import RunOutput, TeamRunOutput
from kern.run.events import BaseRunEvent, ModelRetryEvent, RunContentEvent, RunIntermediateContentEvent
from kern.runner.compile import database_of
from kern.testing import Answer, Fault, FunctionModel, ModelServer, ScriptedModel, tool_call


def saying(text: str | None, *calls: ToolCall) -> ModelResponse:
    return ModelResponse.of(text, *calls)


def delegate(member_id: str) -> ToolCall:
    return tool_call("delegate_task_to_member", member_id=member_id, task="do it")


def count() -> str:
    """Count."""
    return "3"


@tool(show_result=True)
def shown() -> str:
    """Count, for people to see."""
    return "3 apples"


@tool(show_result=True)
def pieces() -> Iterator[str]:
    """Count, for people to see, piece by piece."""
    yield ""
    yield "3 "
    yield "apples"


@tool(show_result=True)
def cracked() -> Iterator[str]:
    """Begin to count."""
    yield "1, 2"
    raise ValueError("oh")


@tool(stop_after_tool_call=True)
def total() -> str:
    """Say the total."""
    return "7 in all"


def give_up() -> str:
    """Stop."""
    raise StopAgentRun("That is all.")


TOOLS: list[Any] = [count, shown, pieces, cracked, total, give_up]


@dataclass
class Puts(Model):
    """A model that streams what it is told to, whatever it returns."""

    deltas: list[list[str]] = field(default_factory=list)
    answers: list[ModelResponse] = field(default_factory=list)
    id: str = "puts"
    provider: str = "test"

    async def respond(self, request: ModelRequest, sink: DeltaSink) -> ModelResponse:
        for piece in self.deltas.pop(0) if request.stream else ():
            sink.content(piece)
        return self.answers.pop(0)


def agent(*answers: Any) -> Agent:
    return Agent(model=ScriptedModel(answers), tools=TOOLS)


def member(name: str, *answers: Any) -> Agent:
    return Agent(name=name, id=name, model=ScriptedModel(answers), tools=TOOLS)


def route(member: Agent | Team, *answers: Any, name: str = "t") -> Team:
    return Team([member], name=name, id=name, model=ScriptedModel(answers), mode="route")


def failing(name: str) -> Agent:
    return member(name, saying("Hm.", tool_call("count")), ModelServerError("gone", status=500))


CASES: dict[str, tuple[Callable[[], Agent | Team], str]] = {
    "a sentence before a call": (
        lambda: agent(saying("I'll check.", tool_call("count")), "It is 3."),
        "I'll check.\n\nIt is 3.",
    ),
    "three turns": (
        lambda: agent(saying("One.", tool_call("count")), saying("Two.", tool_call("count")), "Three."),
        "One.\n\nTwo.\n\nThree.",
    ),
    "silent turns between": (
        lambda: agent(saying("One.", tool_call("count")), tool_call("count"), tool_call("count"), "Two."),
        "One.\n\nTwo.",
    ),
    "blanks before a call": (
        lambda: agent(saying("\n\n", tool_call("count")), "It is 3."),
        "It is 3.",
    ),
    "blanks at the edges of turns": (
        lambda: agent(saying(" One. \n", tool_call("count")), "\nTwo. "),
        " One. \n\n\n\nTwo. ",
    ),
    "an empty last turn": (lambda: agent(saying("One.", tool_call("count")), saying(None)), "One."),
    "a shown result": (
        lambda: agent(saying("So:", tool_call("shown")), "Enough?"),
        "So:\n\n3 apples\n\nEnough?",
    ),
    "shown pieces": (
        lambda: agent(saying("So:", tool_call("pieces")), "Enough?"),
        "So:\n\n3 apples\n\nEnough?",
    ),
    "a tool that ends the run": (lambda: agent(saying("So:", tool_call("total"))), "So:\n\n7 in all"),
    "two of them": (
        lambda: agent(saying("So:", tool_call("total"), tool_call("give_up"))),
        "So:\n\n7 in all\n\nThat is all.",
    ),
    "StopAgentRun": (lambda: agent(saying("So:", tool_call("give_up"))), "So:\n\nThat is all."),
    "a leader": (
        lambda: Team(
            [member("b", saying("Hm.", tool_call("count")), "It is 3.")],
            model=ScriptedModel([saying("I'll ask.", delegate("b")), "3, says b."]),
        ),
        "I'll ask.\n\n3, says b.",
    ),
    "route": (
        lambda: route(
            member("b", saying("Hm.", tool_call("count")), "It is 3."), saying("b knows.", delegate("b"))
        ),
        "b knows.\n\nHm.\n\nIt is 3.",
    ),
    "route, nothing said before": (lambda: route(member("b", "It is 3."), delegate("b")), "It is 3."),
    "route, two levels": (
        lambda: route(
            route(member("c", "It is 3."), saying("c knows.", delegate("c")), name="b"),
            saying("b knows.", delegate("b")),
        ),
        "b knows.\n\nc knows.\n\nIt is 3.",
    ),
    "route, a member that ends by a tool": (
        lambda: route(member("b", saying("So:", tool_call("total"))), saying("b knows.", delegate("b"))),
        "b knows.\n\nSo:\n\n7 in all",
    ),
    "route, a member that is not heard": (
        lambda: Team(
            [member("b", saying("Hm.", tool_call("count")), "It is 3.")],
            model=ScriptedModel([saying("b knows.", delegate("b"))]),
            mode="route",
            stream_member_events=False,
        ),
        "b knows.\n\nHm.\n\nIt is 3.",
    ),
    "route, a member that fails": (
        lambda: route(failing("b"), saying("b knows.", delegate("b")), "b does not."),
        "b knows.\n\nHm.\n\nb does not.",
    ),
    "route, nothing said before a member that fails": (
        lambda: route(failing("b"), delegate("b"), "b does not."),
        "Hm.\n\nb does not.",
    ),
    "route, a member that fails, and is asked again": (
        lambda: route(
            member("b", saying("Hm.", tool_call("count")), ModelServerError("gone", status=500), "It is 3."),
            saying("b knows.", delegate("b")),
            saying("Again.", delegate("b")),
        ),
        "b knows.\n\nHm.\n\nAgain.\n\nIt is 3.",
    ),
    "route, a member that fails and says nothing": (
        lambda: route(
            member("b", ModelServerError("gone", status=500)), saying("b knows.", delegate("b")), "No."
        ),
        "b knows.\n\nNo.",
    ),
    "route, two levels, the lower of which fails": (
        lambda: route(
            route(failing("c"), saying("c knows.", delegate("c")), "c does not.", name="b"),
            saying("b knows.", delegate("b")),
        ),
        "b knows.\n\nc knows.\n\nHm.\n\nc does not.",
    ),
    "route, a member that fails and is not heard": (
        lambda: Team(
            [failing("b")],
            model=ScriptedModel([saying("b knows.", delegate("b")), "b does not."]),
            mode="route",
            stream_member_events=False,
        ),
        "b knows.\n\nHm.\n\nb does not.",
    ),
    "route to two at once": (
        lambda: Team(
            [member("b", "3."), member("c", "4.")],
            model=ScriptedModel([saying("Both.", delegate("b"), delegate("c"))]),
            mode="route",
        ),
        "Both.\n\n3.\n\n4.",
    ),
    "a model that streams nothing": (
        lambda: Agent(
            model=Puts([[], []], [saying("One.", tool_call("count")), saying("Two.")]), tools=TOOLS
        ),
        "One.\n\nTwo.",
    ),
    "a model that streams the beginning": (
        lambda: Agent(model=Puts([["", "\n", "It "]], [saying("\nIt is 3.")])),
        "\nIt is 3.",
    ),
    "another model writes the answer": (
        lambda: Agent(
            model=ScriptedModel([saying("Draft of", tool_call("shown")), "a draft"]),
            tools=TOOLS,
            output_model=ScriptedModel(["The answer."]),
        ),
        "3 apples\n\nThe answer.",
    ),
    "tasks": (
        lambda: Team(
            [member("b", "unused")],
            mode="tasks",
            model=ScriptedModel(
                [
                    saying("I plan.", tool_call("create_task", title="t")),
                    "Not yet.",
                    saying("On the way.", tool_call("complete_task", task_id=1, result="r")),
                    "All done.",
                ]
            ),
        ),
        "I plan.\n\nAll done.",
    ),
}


async def heard(runner: Agent | Team, **options: Any) -> tuple[str, RunOutput | TeamRunOutput]:
    """All text of the answer, which in route mode members give, and the output."""
    texts = []
    routes = isinstance(runner, Team) and runner.mode == "route"
    async with runner.arun("go", stream=True, yield_run_output=True, **options) as events:
        async for item in events:
            if isinstance(item, RunContentEvent) and (routes or item.parent_run_id is None):
                texts.append(item.content)
            elif not isinstance(item, BaseRunEvent):
                output = item
    return "".join(texts), output


@pytest.mark.parametrize("case", CASES)
async def test_streamed_text_and_content_agree(case: str) -> None:
    make, expected = CASES[case]
    assert (await make().arun("go")).content == expected
    text, output = await heard(make())
    assert (text, output.content) == (expected, expected)
    if case != "route to two at once":  # whose texts come at the same time, each under its member's name
        text, output = await heard(make(), stream_events=True)
        assert (text, output.content) == (expected, expected)
    stored = make()
    await stored.arun("go")
    assert [m.content for m in await stored.aget_chat_history()] == ["go", expected]


async def test_the_pieces_of_a_tool_that_then_fails_were_shown() -> None:
    text, output = await heard(agent(saying("So:", tool_call("cracked")), "It broke."))
    assert text == output.content == "So:\n\n1, 2\n\nIt broke."


@pytest.mark.parametrize("everything", [False, True])
async def test_the_pieces_of_a_tool_that_then_ends_the_run_were_shown(everything: bool) -> None:
    @tool(show_result=True)
    def stop_short() -> Iterator[str]:
        """Begin to count."""
        yield "1, 2"
        raise StopAgentRun("That will do.")

    counter = Agent(model=ScriptedModel([saying("So:", tool_call("stop_short"))]), tools=[stop_short])
    stream = counter.arun("go", stream=True, stream_events=everything)
    text = "".join([event.content async for event in stream if isinstance(event, RunContentEvent)])
    assert text == stream.output.content == "So:\n\n1, 2\n\nThat will do."


async def test_a_routed_member_that_fails_has_said_what_it_said() -> None:
    broken = Puts()
    broken.respond = fail_after_words  # type: ignore[method-assign]
    team = route(Agent(name="b", id="b", model=broken), saying("b knows.", delegate("b")), "b does not.")
    text, output = await heard(team)
    assert text == output.content == "b knows.\n\nI know\n\nb does not."


async def test_text_that_is_void_is_no_content() -> None:
    calls = []

    async def respond(request: ModelRequest, sink: DeltaSink) -> ModelResponse:
        calls.append(1)
        if len(calls) == 1:
            return saying("One.", tool_call("count"))
        sink.content("Tw")
        if len(calls) == 2:
            raise ModelServerError("again", status=500)
        sink.content("o.")
        return saying("Two.")

    model = Puts()
    model.respond = respond  # type: ignore[method-assign]
    again = Agent(model=model, tools=TOOLS, retries=1, delay_between_retries=0)
    async with again.arun("go", stream=True, stream_events=True, yield_run_output=True) as events:
        items = [item async for item in events]
    assert items[-1].content == "One.\n\nTwo."
    texts: list[str] = []
    for item in items:
        if isinstance(item, RunContentEvent):
            texts.append(item.content)
        elif isinstance(item, ModelRetryEvent):
            texts.pop()
    assert "".join(texts) == "One.\n\nTwo."


@pytest.mark.parametrize("make_db", [InMemoryDb, SqliteDb])
async def test_what_was_shown_before_a_pause_is_part_of_the_content(make_db: Any, tmp_path: Any) -> None:
    @tool(requires_confirmation=True)
    def send() -> str:
        """Send."""
        return "sent"

    db = InMemoryDb() if make_db is InMemoryDb else SqliteDb(tmp_path / "kern.db")

    def make(*answers: Any) -> Agent:
        return Agent(model=ScriptedModel(answers), tools=[send, shown], db=db, session_id="s")

    async def listen(stream: Any) -> tuple[str, RunOutput]:
        items = [item async for item in stream]
        return "".join(i.content for i in items if isinstance(i, RunContentEvent)), items[-1]

    first = make(saying("Look:", tool_call("shown")), saying("I'll send it.", tool_call("send")))
    before, paused = await listen(first.arun("go", stream=True, yield_run_output=True))
    assert before == paused.content == "Look:\n\n3 apples\n\nI'll send it."
    paused.requirements[0].confirm()
    second = make("It is sent.")
    stream = second.acontinue_run(
        run_id=paused.run_id, requirements=paused.requirements, stream=True, yield_run_output=True
    )
    after, done = await listen(stream)
    assert before + after == done.content == "Look:\n\n3 apples\n\nI'll send it.\n\nIt is sent."
    assert done.last_turn == "3 apples\n\nIt is sent."


async def test_a_leader_reads_of_a_member_only_its_last_turn() -> None:
    inner = route(
        member("c", saying("Hm.", tool_call("count")), "It is 3."), saying("c.", delegate("c")), name="b"
    )
    leader = ScriptedModel([delegate("a"), delegate("b"), "done"])
    team = Team(
        [
            member("a", saying("I look.", tool_call("shown")), saying("Hm.", tool_call("count")), "Four."),
            inner,
        ],
        model=leader,
        share_member_interactions=True,
    )
    output = await team.arun("go")
    told = [m.content for m in leader.requests[-1].messages if m.role == "tool"]
    assert told == ["3 apples\n\nFour.", "It is 3."]
    contents = [response.content for response in output.member_responses]
    assert contents == ["I look.\n\n3 apples\n\nHm.\n\nFour.", "c.\n\nHm.\n\nIt is 3."]
    assert "and answered: 3 apples\n\nFour.\n" in str(output.member_responses[1].input)


# Text that is not the answer


class Total(BaseModel):
    total: int


class Calls(ScriptedModel):
    structured_output = "tool"


@pytest.mark.parametrize("way", ["native", "tool", "words"])
async def test_with_an_output_schema_text_before_a_call_is_intermediate(way: str) -> None:
    kind = Calls if way == "tool" else ScriptedModel
    model = kind([saying("I'll check.", tool_call("shown")), '{"total": 3}'])
    structured = Agent(model=model, tools=TOOLS, output_schema=Total, use_json_mode=way == "words")
    async with structured.arun("go", stream=True, stream_events=True, yield_run_output=True) as events:
        items = [item async for item in events]
    contents = [item.content for item in items if isinstance(item, RunContentEvent)]
    between = [item.content for item in items if isinstance(item, RunIntermediateContentEvent)]
    assert contents[-1] == items[-1].content == Total(total=3)
    assert all(not isinstance(content, str) for content in contents)
    assert between == ["I'll check.", "3 apples"]
    assert [m.content for m in await structured.aget_chat_history()] == ["go", '{"total":3}']


async def test_commentary_is_intermediate_and_no_content() -> None:
    first = ModelResponse(Message("assistant", commentary="Thinking aloud.", tool_calls=[tool_call("count")]))
    last = ModelResponse(Message("assistant", "It is 3.", commentary="Nearly there."))
    talker = agent(first, last)
    async with talker.arun("go", stream=True, stream_events=True, yield_run_output=True) as events:
        items = [item async for item in events]
    between = "".join(i.content for i in items if isinstance(i, RunIntermediateContentEvent))
    assert between == "Thinking aloud.Nearly there."
    assert "".join(i.content for i in items if isinstance(i, RunContentEvent)) == "It is 3."
    assert items[-1].content == "It is 3."
    assert [m.content for m in await talker.aget_chat_history()] == ["go", "It is 3."]


async def test_an_answer_that_a_hook_may_still_change_is_not_heard_before() -> None:
    async def louder(function_name: str, function_call: Callable[..., Any], arguments: dict[str, Any]) -> str:
        return str(await function_call(**arguments)).upper()

    team = Team(
        [member("b", "It is three.")],
        model=ScriptedModel([saying("b knows.", delegate("b"))]),
        mode="route",
        tool_hooks=[louder],
    )
    text, output = await heard(team)
    assert text == output.content == "b knows.\n\nIT IS THREE."


# Runs that are cut short


class Slow(Model):
    """Streams words until it is stopped."""

    id, provider = "slow", "test"

    async def respond(self, request: ModelRequest, sink: DeltaSink) -> ModelResponse:
        for number in range(1000):
            sink.content(f"word{number} ")
            await asyncio.sleep(0.005)
        raise ModelConnectionError("never")


@pytest.mark.parametrize("how", ["cancel_run", "break", "timeout"])
@pytest.mark.parametrize("everything", [False, True])
@pytest.mark.parametrize("kind", ["agent", "route", "generator"])
async def test_what_was_shown_before_a_run_was_cut_short_is_kept(
    kind: str, everything: bool, how: str
) -> None:
    @tool(show_result=True)
    async def stream_words() -> Any:
        """Stream words."""
        for number in range(1000):
            yield f"word{number} "
            await asyncio.sleep(0.005)

    def make() -> Agent | Team:
        slow = Agent(name="b", id="b", model=Slow())
        if kind == "agent":
            return Agent(model=FunctionModel(play), tools=TOOLS, session_id="s", fallback_models=[Slow()])
        if kind == "route":
            return Team([slow], model=FunctionModel(play), mode="route", session_id="s")
        return Agent(model=FunctionModel(play), tools=[stream_words], session_id="s")

    def play(request: ModelRequest) -> Any:
        if request.messages[-1].role == "tool":
            raise ModelServerError("ask the other", status=400)
        call = {"agent": tool_call("count"), "route": delegate("b"), "generator": tool_call("stream_words")}
        return saying("Look.", call[kind])

    runner = make()
    seen = ""
    timeout = 0.3 if how == "timeout" else None
    stream = runner.arun("go", stream=True, stream_events=everything, run_id="r", timeout=timeout)
    with suppress(RunDeadlineExceeded):
        async for event in stream:
            if isinstance(event, RunContentEvent):
                seen += event.content
                if seen.count("word") == 5 and how != "timeout":
                    if how == "break":
                        break
                    await runner.acancel_run("r")
    await stream.aclose()
    output = await runner.aget_run_output("r")
    assert output is not None
    assert output.status is (RunStatus.error if how == "timeout" else RunStatus.cancelled)
    assert seen.startswith("Look.\n\nword0 word1")
    assert output.content.startswith(seen)
    assert [m.content for m in await runner.aget_chat_history()] == ["go", output.content]
    model = ScriptedModel(["next"])
    asker = Agent(model=model, db=database_of(runner), session_id="s", add_history_to_context=True)
    await asker.arun("And?")
    told = model.requests[0].messages
    assert [m.role for m in told] == ["user", "assistant", "tool", "assistant", "user"]
    assert "word0 word1" in (told[3].content or "")
    assert "before its answer was complete.]" in (told[3].content or "")


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_is_cut_at_a_limit_is_kept_as_far_as_it_came(stream: bool) -> None:
    async with ModelServer(
        [tool_call("count"), Answer("one two three four", fault=Fault.incomplete(2)), "ok"]
    ) as server:
        model = OpenAIChat("m", base_url=server.base_url, api_key="any")
        talker = Agent(model=model, tools=TOOLS, add_history_to_context=True)
        with pytest.raises(ModelIncompleteError) as raised:
            if stream:
                async with talker.arun("go", stream=True) as events:
                    [event async for event in events]
            else:
                await talker.arun("go")
        assert raised.value.run_output.content == raised.value.content
        assert raised.value.content.startswith("one ")
        await talker.arun("And?")
        ending = "[The run failed with ModelIncompleteError before its answer was complete.]"
        assert server.requests[-1].messages[-2].content == f"{raised.value.content}\n\n{ending}"


async def test_what_a_member_said_for_its_team_and_a_check_refused_is_no_content() -> None:
    def refuse(run_output: RunOutput) -> None:
        raise OutputCheckError("no")

    refused = Agent(name="b", id="b", model=ScriptedModel(["rude words"]), post_hooks=[refuse])
    team = route(refused, delegate("b"), "I am sorry.")
    text, output = await heard(team)
    assert output.content == "I am sorry."
    assert text == "rude words\n\nI am sorry."
    assert [m.content for m in await team.aget_chat_history()] == ["go", "I am sorry."]


@pytest.mark.parametrize("how", ["cancelled", "broadcast", "failed"])
async def test_what_a_members_tools_did_is_known_though_it_never_answered(how: str) -> None:
    charged = asyncio.Event()

    def charge() -> str:
        """Charge the card."""
        charged.set()
        return "receipt R-1"

    async def play(request: ModelRequest) -> Any:
        if request.messages[-1].role != "tool":
            return tool_call("charge")
        if how == "failed":
            raise ModelServerError("gone", status=500)
        await asyncio.sleep(60)
        return "never"

    model = ScriptedModel(
        [
            tool_call("delegate_task_to_members", task="x") if how == "broadcast" else delegate("b"),
            "one",
            "two",
        ]
    )
    team = Team(
        [Agent(name="b", id="b", model=FunctionModel(play), tools=[charge])],
        model=model,
        mode="broadcast" if how == "broadcast" else "coordinate",
        add_history_to_context=True,
        session_id="s",
    )
    run = asyncio.ensure_future(team.arun("Charge me", run_id="r"))
    await charged.wait()
    if how != "failed":
        await asyncio.sleep(0.05)
        await team.acancel_run("r")
    output = await run
    if how == "failed":
        assert "failed: ModelServerError" in (output.tools[0].result or "")
    else:
        assert output.status is RunStatus.cancelled
        await team.arun("And?")
    results = [m.content or "" for m in model.requests[-1].messages if m.role == "tool"]
    assert any("charge: receipt R-1" in text for text in results)


async def test_a_break_before_a_members_text_is_shown_once_though_the_member_fails() -> None:
    broken = Puts()
    broken.respond = fail_after_words  # type: ignore[method-assign]
    b = Agent(name="b", id="b", model=broken, retries=2, delay_between_retries=0)
    team = route(b, saying("b knows.", delegate("b")), "b does not.")
    async with team.arun("go", stream=True, stream_events=True, yield_run_output=True) as events:
        items = [item async for item in events]
    own = [i.content for i in items if isinstance(i, RunContentEvent) and i.parent_run_id is None]
    assert "".join(own) == "b knows.\n\n\n\nb does not."
    assert items[-1].content == "b knows.\n\nI know\n\nb does not."


async def fail_after_words(request: ModelRequest, sink: DeltaSink) -> ModelResponse:
    sink.content("I know")
    raise ModelServerError("gone", status=500)
