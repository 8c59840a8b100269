"""What tools can do, as the model and the consumer see it: semantics.md 5, line by line."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from kern import Agent, RetryAgentRun, RunContext, RunStatus, StopAgentRun, tool
from kern.db import InMemoryDb
from kern.durable import DbJournal
from kern.errors import ModelBehaviorError
from kern.messages import Audio, File, Image, Message, ToolCall, Video
from kern.models.base import ModelResponse
from kern.models.openai import OpenAIChat, OpenAIResponses
from kern.run.events import (
    BaseRunEvent,
    RunContentEvent,
    RunIntermediateContentEvent,
    ToolCallCompletedEvent,
    ToolCallErrorEvent,
)
from kern.run.output import RunOutput
from kern.testing import Answer, ModelServer, ScriptedModel, tool_call
from kern.tools.function import Function


def agent_with(*tools: Any, calls: list[ToolCall], answer: str = "done", **options: Any) -> Agent:
    model = ScriptedModel([ModelResponse.of(None, *calls), answer])
    return Agent(model=model, tools=list(tools), **options)


async def result_of(function: Any, arguments: str = "{}") -> tuple[str, bool]:
    """What the model is told of one call, and whether as an error."""
    call = ToolCall("call_1", Function.from_callable(function).name, arguments)
    output = await agent_with(function, calls=[call]).arun("go")
    (message,) = [message for message in output.messages if message.role == "tool"]
    assert message.tool_call_error == output.tools[0].tool_call_error
    return message.content or "", message.tool_call_error


async def events_of(agent: Agent) -> list[BaseRunEvent]:
    return [event async for event in agent.arun("go", stream=True, stream_events=True)]


# Arguments: what a model may write, and what the function gets


class Colour(enum.Enum):
    red = "red"
    blue = "blue"


class Point(TypedDict):
    x: int
    y: int


@dataclasses.dataclass
class Size:
    width: int
    height: int = 1


class Order(BaseModel):
    article: str
    quantity: int = Field(gt=0)


def takes_int(n: int) -> Any:
    return n


def takes_str(text: str) -> Any:
    return text


def takes_optional(text: str | None = None) -> Any:
    return text


def takes_literal(size: Literal["s", "m"]) -> Any:
    return size


def takes_enum(colour: Colour) -> Any:
    return colour


def takes_list(names: list[str]) -> Any:
    return names


def takes_dict(counts: dict[str, int]) -> Any:
    return counts


def takes_tuple(pair: tuple[int, str]) -> Any:
    return pair


def takes_typed_dict(point: Point) -> Any:
    return point


def takes_dataclass(size: Size) -> Any:
    return size


def takes_model(order: Order) -> Any:
    return order


def takes_annotated(n: Annotated[int, Field(ge=1, le=3)]) -> Any:
    return n


def takes_datetime(when: dt.datetime) -> Any:
    return when


def takes_any(value: Any) -> Any:
    return value


def takes_default(n: int = 5) -> Any:
    return n


ACCEPTED: list[tuple[Callable[..., Any], str, Any]] = [
    (takes_int, '{"n": 7}', 7),
    (takes_int, '{"n": "7"}', 7),
    (takes_str, '{"text": "None"}', "None"),
    (takes_optional, "{}", None),
    (takes_optional, '{"text": null}', None),
    (takes_literal, '{"size": "m"}', "m"),
    (takes_enum, '{"colour": "blue"}', Colour.blue),
    (takes_list, '{"names": ["a", "b"]}', ["a", "b"]),
    (takes_dict, '{"counts": {"a": 1}}', {"a": 1}),
    (takes_tuple, '{"pair": [1, "a"]}', (1, "a")),
    (takes_typed_dict, '{"point": {"x": 1, "y": 2}}', {"x": 1, "y": 2}),
    (takes_dataclass, '{"size": {"width": 2}}', Size(2)),
    (takes_model, '{"order": {"article": "milk", "quantity": 2}}', Order(article="milk", quantity=2)),
    (takes_annotated, '{"n": 3}', 3),
    (takes_datetime, '{"when": "2026-11-22T10:00:00Z"}', dt.datetime(2026, 11, 22, 10, tzinfo=dt.UTC)),
    (takes_any, '{"value": {"a": [1, null]}}', {"a": [1, None]}),
    (takes_default, "", 5),
    (takes_default, "{}", 5),
]

REFUSED: list[tuple[Callable[..., Any], str, str]] = [
    (takes_int, '{"n": "seven"}', "n: Input should be a valid integer"),
    (takes_int, "{}", "n: required, but missing"),
    (takes_int, '{"n": 1, "m": 2}', "m: no such argument"),
    (takes_int, '{"n": 1', "are not valid JSON"),
    (takes_int, "[1]", "must be one JSON object"),
    (takes_literal, '{"size": "xl"}', "size: Input should be 's' or 'm'"),
    (takes_model, '{"order": {"article": "milk", "quantity": 0}}', "order.quantity: Input should be greater"),
    (takes_annotated, '{"n": 4}', "n: Input should be less than or equal to 3"),
]


@pytest.mark.parametrize(
    ("signature", "arguments", "expected"),
    ACCEPTED,
    ids=[f"{function.__name__}-{text}" for function, text, _ in ACCEPTED],
)
async def test_arguments_reach_the_function_as_it_declares_them(
    signature: Callable[..., Any], arguments: str, expected: Any
) -> None:
    got: list[Any] = []

    def record(result: Any) -> None:
        got.append(result)

    _, failed = await result_of(Function(signature, post_hook=record), arguments)
    assert not failed
    assert got == [expected]


@pytest.mark.parametrize(
    ("signature", "arguments", "complaint"),
    REFUSED,
    ids=[f"{function.__name__}-{text}" for function, text, _ in REFUSED],
)
async def test_bad_arguments_are_told_to_the_model_and_the_run_goes_on(
    signature: Callable[..., Any], arguments: str, complaint: str
) -> None:
    text, failed = await result_of(signature, arguments)
    assert failed
    assert complaint in text


async def test_an_unknown_tool_is_told_with_those_there_are_and_has_its_events() -> None:
    agent = agent_with(takes_int, calls=[tool_call("no_such_tool")])
    events = await events_of(agent)
    (error,) = [event for event in events if isinstance(event, ToolCallErrorEvent)]
    assert error.error == "There is no tool named 'no_such_tool'. Tools: takes_int."
    assert [event for event in events if isinstance(event, ToolCallCompletedEvent)]


def test_injected_parameters_are_hidden_from_the_schema() -> None:
    def add(run_context: RunContext, item: str) -> None: ...

    assert list(Function(add).parameters["properties"]) == ["item"]


# Results: what the model is told


RESULTS: list[tuple[str, Any, str]] = [
    ("text", "as it is", "as it is"),
    ("none", None, ""),
    ("number", 7, "7"),
    ("dict", {"a": [1, None]}, '{"a":[1,null]}'),
    ("list", ["a", 1], '["a",1]'),
    ("model", Order(article="milk", quantity=1), '{"article":"milk","quantity":1}'),
    ("models", [Order(article="milk", quantity=1)], '[{"article":"milk","quantity":1}]'),
    ("dataclass", Size(1, 2), '{"width":1,"height":2}'),
    ("date", dt.date(2026, 11, 22), "2026-11-22"),
]


@pytest.mark.parametrize(
    ("value", "expected"), [case[1:] for case in RESULTS], ids=[case[0] for case in RESULTS]
)
@pytest.mark.parametrize("colour", ["sync", "async"])
async def test_a_result_is_told_as_text_or_json(value: Any, expected: str, colour: str) -> None:
    def give() -> Any:
        return value

    async def give_async() -> Any:
        return value

    assert await result_of(give if colour == "sync" else give_async) == (expected, False)


async def test_an_exception_is_told_with_its_text_and_the_run_goes_on() -> None:
    def fail() -> None:
        raise LookupError("no such shelf")

    assert await result_of(fail) == ("LookupError: no such shelf", True)


async def test_stop_agent_run_ends_the_run_with_its_message() -> None:
    def enough() -> None:
        raise StopAgentRun("that was all")

    output = await agent_with(enough, calls=[tool_call("enough")]).arun("go")
    assert (output.status, output.content) == (RunStatus.completed, "that was all")


# Generators


def letters() -> Iterator[str]:
    yield "a"
    yield "b"
    yield "c"


async def letters_async() -> AsyncIterator[str]:
    for letter in "abc":
        yield letter


@pytest.mark.parametrize("function", [letters, letters_async])
async def test_a_generator_s_pieces_are_events_and_their_sum_is_the_result(
    function: Callable[..., Any],
) -> None:
    name = function.__name__
    events = await events_of(agent_with(function, calls=[tool_call(name)]))
    pieces = [event for event in events if isinstance(event, RunIntermediateContentEvent)]
    (completed,) = [event for event in events if isinstance(event, ToolCallCompletedEvent)]
    assert [event.content for event in pieces] == ["a", "b", "c"]
    assert {event.tool_call_id for event in pieces} == {completed.tool.tool_call_id}
    assert completed.content == "abc"
    assert max(event.seq for event in pieces) < completed.seq


async def test_a_piece_is_an_event_while_the_generator_still_runs() -> None:
    seen = threading.Event()

    def slow() -> Iterator[str]:
        yield "first"
        assert seen.wait(20)
        yield "second"

    got = []
    async for event in agent_with(slow, calls=[tool_call("slow")]).arun(
        "go", stream=True, stream_events=True
    ):
        if isinstance(event, RunIntermediateContentEvent):
            got.append(event.content)
            seen.set()
    assert got == ["first", "second"]


async def test_a_shown_generator_streams_its_pieces_as_content() -> None:
    @tool(show_result=True)
    def poem() -> Iterator[str]:
        yield "roses "
        yield "are red"

    agent = agent_with(poem, calls=[tool_call("poem")])
    events = [event async for event in agent.arun("go", stream=True)]
    assert [event.content for event in events] == ["roses ", "are red", "\n\ndone"]
    assert (await agent_with(poem, calls=[tool_call("poem")]).arun("go")).content == "roses are red\n\ndone"


# What the user sees of results


async def streamed_text(agent: Agent) -> str:
    return "".join(
        [event.content async for event in agent.arun("go", stream=True) if isinstance(event, RunContentEvent)]
    )


@tool(show_result=True)
def forecast(town: str) -> str:
    return f"sunny in {town}"


@tool(stop_after_tool_call=True)
def total() -> str:
    return "12 Euro"


@tool(stop_after_tool_call=True)
def note() -> str:
    return "paid"


def hidden() -> str:
    return "for the model only"


SHOWN: list[tuple[list[ToolCall], str]] = [
    ([tool_call("hidden")], "done"),
    ([tool_call("forecast", town="Rome")], "sunny in Rome\n\ndone"),
    (
        [tool_call("forecast", town="Rome"), tool_call("hidden"), tool_call("forecast", town="Oslo")],
        "sunny in Rome\n\nsunny in Oslo\n\ndone",
    ),
    ([tool_call("total")], "12 Euro"),
    ([tool_call("total"), tool_call("note")], "12 Euro\n\npaid"),
    ([tool_call("forecast", town="Rome"), tool_call("total")], "sunny in Rome\n\n12 Euro"),
]


@pytest.mark.parametrize(("calls", "expected"), SHOWN, ids=[str(number) for number in range(len(SHOWN))])
async def test_shown_results_are_content_streamed_or_not(calls: list[ToolCall], expected: str) -> None:
    def make() -> Agent:
        return agent_with(forecast, total, note, hidden, calls=calls)

    output = await make().arun("go")
    assert output.status is RunStatus.completed
    assert output.content == expected
    assert await streamed_text(make()) == expected


async def test_a_run_that_a_tool_stops_asks_the_model_no_more() -> None:
    model = ScriptedModel([tool_call("total")])
    output = await Agent(model=model, tools=[total]).arun("go")
    model.assert_exhausted()
    assert output.content == "12 Euro"
    assert output.messages[-1].stop_after_tool_call


async def test_an_error_is_never_shown_as_a_result() -> None:
    @tool(show_result=True)
    def broken() -> str:
        raise ValueError("oh")

    assert (await agent_with(broken, calls=[tool_call("broken")]).arun("go")).content == "done"


# Media


PNG = b"\x89PNG\r\n\x1a\n"


async def test_media_go_to_the_output_and_pictures_and_files_to_the_model() -> None:
    def draw() -> list[Any]:
        return [
            "two drawings",
            Image(content=PNG, mime_type="image/png", name="one"),
            Image(url="https://example.com/two.png"),
            File(content=b"%PDF", name="plan.pdf"),
            Audio(content=b"RIFF", mime_type="audio/wav"),
            Video(url="https://example.com/v.mp4"),
        ]

    output = await agent_with(draw, calls=[tool_call("draw")]).arun("go")
    (message,) = [message for message in output.messages if message.role == "tool"]
    assert message.content == "two drawings\n[image: one]\n[image]\n[file: plan.pdf]\n[audio]\n[video]"
    assert [image.name for image in message.images] == ["one", None]
    assert [file.name for file in message.files] == ["plan.pdf"]
    assert (message.audio, message.videos) == ([], [])
    assert len(output.images) == 2
    assert [file.name for file in output.files] == ["plan.pdf"]
    assert (len(output.audio), len(output.videos)) == (1, 1)
    assert RunOutput.from_dict(output.to_dict()).images[0].content == PNG


async def test_media_alone_and_from_generators() -> None:
    def one() -> Image:
        return Image(content=PNG, name="x")

    def several() -> Iterator[Any]:
        yield "here: "
        yield Image(content=PNG, name="x")

    assert await result_of(one) == ("[image: x]", False)
    assert await result_of(several) == ("here: [image: x]", False)


async def test_media_of_parallel_calls_stand_in_call_order() -> None:
    first_done = threading.Event()

    def paint(name: str) -> Image:
        if name == "first":
            assert first_done.wait(20)
        else:
            first_done.set()
        return Image(content=PNG, name=name)

    calls = [tool_call("paint", name="first"), tool_call("paint", name="second")]
    output = await agent_with(paint, calls=calls).arun("go")
    assert [image.name for image in output.images] == ["first", "second"]


@pytest.mark.parametrize("protocol", ["responses", "chat"])
async def test_a_tool_s_picture_reaches_the_provider(protocol: str) -> None:
    def draw() -> Image:
        return Image(content=PNG, mime_type="image/png")

    async with ModelServer([Answer(tool_calls=[tool_call("draw")]), "I see it"]) as server:
        make = OpenAIResponses if protocol == "responses" else OpenAIChat
        model = make(id="test", base_url=server.base_url, api_key="test")
        output = await Agent(model=model, tools=[draw]).arun("go")
        assert output.content == "I see it"
        assert "data:image/png;base64,iVBORw0KGgo=" in str(server.requests[-1].body)


# RetryAgentRun


async def test_a_tool_may_send_the_model_back_three_times_and_no_more() -> None:
    def pick(number: int) -> str:
        if number < 10:
            raise RetryAgentRun(f"{number} is too small")
        return "fine"

    tries = [tool_call("pick", number=number) for number in range(1, 4)]
    enough = Agent(model=ScriptedModel([*tries, tool_call("pick", number=10), "done"]), tools=[pick])
    output = await enough.arun("go")
    assert [call.result for call in output.tools] == [
        "1 is too small",
        "2 is too small",
        "3 is too small",
        "fine",
    ]
    too_often = Agent(model=ScriptedModel([*tries, tool_call("pick", number=4)]), tools=[pick])
    with pytest.raises(
        ModelBehaviorError, match="pick has asked the model to try again 3 times, without success: 4 is too"
    ):
        await too_often.arun("go")


@pytest.mark.parametrize("durable", [False, True], ids=["", "durable"])
async def test_the_call_that_sends_the_model_back_once_too_often_is_on_record(durable: bool) -> None:
    def pick(number: int) -> str:
        raise RetryAgentRun(f"{number} is too small")

    db = InMemoryDb()
    journal = DbJournal(db) if durable else None
    tries = [tool_call("pick", number=number) for number in range(1, 5)]
    agent = Agent(model=ScriptedModel(tries), tools=[pick], db=db, session_id="s", journal=journal)
    ended: list[str] = []
    with pytest.raises(ModelBehaviorError) as caught:
        async for event in agent.arun("go", stream=True, stream_events=True):
            if isinstance(event, ToolCallCompletedEvent):
                ended.append(event.tool.result or "")
    output = caught.value.run_output
    assert output is not None
    assert ended == [call.result for call in output.tools]
    assert ended[-1] == "4 is too small"
    model = ScriptedModel(["hello"])
    await Agent(model=model, db=db, session_id="s", add_history_to_context=True).arun("next")
    told = [message.content for message in model.requests[0].messages if message.role == "tool"]
    assert told == ended


async def test_a_tool_that_sends_the_model_back_commits() -> None:
    def pick(run_context: RunContext) -> None:
        run_context.session_state["tries"] = run_context.session_state.get("tries", 0) + 1
        if run_context.session_state["tries"] == 1:
            raise RetryAgentRun("again")

    agent = Agent(model=ScriptedModel([tool_call("pick"), tool_call("pick"), "done"]), tools=[pick])
    assert (await agent.arun("go")).session_state == {"tries": 2}


def test_a_message_of_a_tool_with_media_survives_the_database() -> None:
    message = Message("tool", "[image]", tool_call_id="1", images=[Image(content=PNG)])
    assert Message.from_dict(message.to_dict()).images[0].content == PNG
