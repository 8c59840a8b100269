"""What depends on the size of a list, a text or a number of calls takes time in proportion to it.

Time is not measured: a machine under load would fail. Each path is run at two sizes, and the lines of Python
that it executes are counted; four times the input may take five times the lines. What is done in C does not
show there: its seconds are printed (`pytest -s`), and asserted nowhere.
"""

from __future__ import annotations

import asyncio
import io
import json
import random
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pydantic
import pytest
from rich.console import Console

from kern import Agent, Message, RunOutput, Team
from kern.console import ViewOptions, open_view
from kern.console._plain import PlainView
from kern.console._text import clean, first_line
from kern.guardrails import PIIDetectionGuardrail
from kern.messages import Origin, ToolCall
from kern.models._ends import Ends
from kern.models._sse import EventStream
from kern.models.anthropic._decode import MessagesReader
from kern.models.anthropic._encode import Options
from kern.models.anthropic._encode import encode as anthropic_encode
from kern.models.base import ModelRequest, ModelResponse
from kern.models.openai import _chat_encode, _responses_encode
from kern.models.openai._chat_decode import ChatReader
from kern.models.servers import SERVERS
from kern.run.events import (
    EventSource,
    RunContentEvent,
    RunStartedEvent,
    ToolCallCompletedEvent,
    ToolCallStartedEvent,
)
from kern.run.tool_execution import ToolExecution
from kern.runner.past_runs import _fewer_tool_calls, _newest
from kern.runtime.answer_schema import answer_schema
from kern.runtime.call_ids import CallIds
from kern.runtime.stream import EventBuffer
from kern.state import codec, patch
from kern.state.merge import merge
from kern.state.templates import render
from kern.team.tasks import _by_id, _wording
from kern.testing import FunctionModel, ScriptedModel, tool_call
from kern.tools.docstring import parse_docstring
from kern.tools.json_check import misfits

SMALL, LARGE = 2_000, 8_000
MOST = 5.0

Path_ = Callable[[int], Callable[[], Any]]
PATHS: dict[str, Path_] = {}


def path(make: Path_) -> Path_:
    """A path by the name of the function, which prepares the input for a size and returns what is counted."""
    PATHS[make.__name__.replace("_", " ").strip()] = make
    return make


# State


def halves(n: int) -> tuple[list[int], list[int]]:
    return list(range(n)), [x + 1_000_000 * (x % 2) for x in range(n)]


@path
def diff_of_a_list_in_which_every_second_number_changed(n: int) -> Callable[[], Any]:
    return lambda: patch.diff({"x": halves(n)[0]}, {"x": halves(n)[1]})


@path
def diff_of_a_shuffled_list(n: int) -> Callable[[], Any]:
    shuffled = random.Random(1).sample(range(n), n)
    return lambda: patch.diff(list(range(n)), shuffled)


@path
def diff_of_a_list_of_few_values(n: int) -> Callable[[], Any]:
    chance = random.Random(2)
    old, new = ([chance.randrange(20) for _ in range(n)] for _ in range(2))
    return lambda: patch.diff(old, new)


@path
def diff_of_a_list_with_random_insertions_and_removals(n: int) -> Callable[[], Any]:
    chance = random.Random(3)
    old = list(range(n))
    new = [y for x in old if chance.random() < 0.8 for y in ([x, -x] if chance.random() < 0.2 else [x])]
    return lambda: patch.diff(old, new)


@path
def diff_of_a_list_of_objects(n: int) -> Callable[[], Any]:
    old = [{"id": x, "done": False} for x in range(n)]
    new = [{"id": x, "done": x % 3 == 0} for x in range(n)]
    return lambda: patch.diff(old, new)


@path
def diff_of_an_object(n: int) -> Callable[[], Any]:
    old = {f"k{x}": x for x in range(n)}
    return lambda: patch.diff(old, {key: value for key, value in old.items() if value % 3})


@path
def a_patch_applied_and_undone(n: int) -> Callable[[], Any]:
    old: dict[str, Any] = {"keys": {f"k{x}": x for x in range(n)}, "list": list(range(n))}
    new = {"keys": {k: v for k, v in old["keys"].items() if v % 3}, "list": list(range(1, n, 2))}
    operations = patch.diff(old, new)

    def there_and_back() -> None:
        after = patch.apply(old, operations)
        assert patch.apply(after, patch.invert(operations)) == old

    return there_and_back


@path
def a_place_searched_for_in_a_patch(n: int) -> Callable[[], Any]:
    old, new = halves(n)
    operations = patch.diff(old, new)
    return lambda: (
        patch.touches(operations, "/5"),
        patch.values_at(old, operations, "/5"),
        patch.wire(operations),
    )


@path
def merge_of_lists(n: int) -> Callable[[], Any]:
    base = list(range(n))
    theirs = [x for x in base if x % 5] + [-1]
    ours = [y for x in base for y in ([x, x + 0.5] if x % 7 == 0 else [x])]
    return lambda: merge({"x": base}, {"x": theirs}, {"x": ours})


@path
def merge_of_lists_of_few_values(n: int) -> Callable[[], Any]:
    chance = random.Random(4)
    base = [chance.randrange(9) for _ in range(n)]
    return lambda: merge(base, base[: n // 2] + [3] * 9 + base[n // 2 :], [x for x in base if x != 4])


@path
def merge_of_objects(n: int) -> Callable[[], Any]:
    base = {f"k{x}": x for x in range(n)}
    theirs = {key: value + value % 2 for key, value in base.items()}
    ours = {key: value - (value % 3 == 0) for key, value in base.items() if value % 7}
    return lambda: merge(base, theirs, ours)


@path
def the_codec_where_it_walks(n: int) -> Callable[[], Any]:
    state = {"x": tuple((x, {"y": x}) for x in range(n))}
    return lambda: codec.encode(state)


@path
def templates(n: int) -> Callable[[], Any]:
    text = "".join(f"{{k{x}}} and {{a.b}} and {{{{no}} " for x in range(n))
    return lambda: render(text, {f"k{x}": x for x in range(n)}, {"a": {"b": "c"}})


@path
def templates_of_nothing_but_brackets(n: int) -> Callable[[], Any]:
    return lambda: render("{" * n + "a" * n + "{a." * n, {"a": 1})


# What comes from a model


@path
def events_in_one_chunk(n: int) -> Callable[[], Any]:
    return lambda: EventStream().feed(b'event: a\ndata: {"x": 1}\n\n' * n)


@path
def events_byte_by_byte(n: int) -> Callable[[], Any]:
    data = b'data: {"x": 1}\r\n\r\n' * (n // 18)

    def feed() -> None:
        stream = EventStream()
        assert sum(len(stream.feed(data[at : at + 1])) for at in range(len(data))) >= n // 18 - 1

    return feed


@path
def one_event_of_many_lines(n: int) -> Callable[[], Any]:
    def feed() -> None:
        stream = EventStream()
        for _ in range(n):
            stream.feed(b"data: x\n")
        assert len(stream.feed(b"\n")) == 1

    return feed


def chat_events(deltas: list[str]) -> list[bytes]:
    ending = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    start = '{"choices":[{"index":0,"delta":'
    return [*(f"data: {start}{delta}}}]}}\n\n".encode() for delta in deltas), ending, b"data: [DONE]\n\n"]


def read(events: list[bytes]) -> None:
    from kern.models.openai.chat import OpenAIChat

    reader = ChatReader(
        Origin("openai", "m"), None, streamed=True, ends=OpenAIChat(id="m", api_key="k")._ends
    )
    for event in events:
        reader.feed(event)
    reader.finish()


@path
def a_streamed_answer(n: int) -> Callable[[], Any]:
    events = chat_events(['{"content":"word "}'] * n)
    return lambda: read(events)


@path
def streamed_calls(n: int) -> Callable[[], Any]:
    call = '{"tool_calls":[{"index":%d,"id":"c","function":{"name":"f","arguments":"{}"}}]}'
    events = chat_events([call % index for index in range(n)])
    return lambda: read(events)


@path
def streamed_arguments(n: int) -> Callable[[], Any]:
    first = '{"tool_calls":[{"index":0,"id":"c","function":{"name":"f","arguments":"["}}]}'
    more = '{"tool_calls":[{"index":0,"function":{"arguments":"1,"}}]}'
    events = chat_events([first, *[more] * n])
    return lambda: read(events)


@path
def call_ids(n: int) -> Callable[[], Any]:
    message = Message("assistant", tool_calls=[ToolCall("same", "f", "{}") for _ in range(n)])
    messages = [message, *(Message("tool", "x", tool_call_id="same") for _ in range(n))]
    return lambda: CallIds().apply([*messages, *messages])


@path
def an_answer_s_json_amid_words(n: int) -> Callable[[], Any]:
    form = answer_schema({"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]})

    def look() -> None:
        for text in ('words {"y": 1} ' * n + '{"x": 1}', "[" * n, "{" * n, '```json\n{"x": 1}\n```\n' * n):
            try:
                form.read(text)
            except ValueError:
                continue

    return look


@path
def an_answer_checked_while_it_grows(n: int) -> Callable[[], Any]:
    schema = {"type": "array", "items": {"type": "object", "properties": {"x": {"type": "integer"}}}}
    value = [{"x": x} for x in range(n)]
    return lambda: misfits(value, schema, unfinished=True)


# Prompts and requests


def conversation(n: int) -> list[Message]:
    messages = []
    for x in range(n // 4):
        call = ToolCall(f"c{x}", "f", "{}")
        messages += [Message("user", "q"), Message("assistant", tool_calls=[call])]
        messages += [Message("tool", "r", tool_call_id=f"c{x}", tool_name="f"), Message("assistant", "a")]
    return messages


@path
def history_that_is_trimmed(n: int) -> Callable[[], Any]:
    said = conversation(n)
    answers = [Message("assistant", "a") for _ in range(n)]
    return lambda: (_fewer_tool_calls(said, 3), _newest(said, n // 2), _newest(answers, n))


@path
def a_request_encoded(n: int) -> Callable[[], Any]:
    request = ModelRequest(messages=tuple(conversation(n)))
    return lambda: (
        _chat_encode.encode(request, Origin("openai", "m"), server=SERVERS["openai"]),
        _responses_encode.encode(request, Origin("openai", "m")),
        anthropic_encode(request, Options()),
    )


@path
def calls_of_one_id_for_anthropic(n: int) -> Callable[[], Any]:
    said = [Message("assistant", tool_calls=[ToolCall("same", "f", "{}")]) for _ in range(n)]
    request = ModelRequest(messages=said)
    return lambda: anthropic_encode(request, Options())


@path
def an_answer_of_anthropics_of_many_blocks(n: int) -> Callable[[], Any]:
    call = {"type": "server_tool_use", "name": "web_search"}
    content: list[dict[str, Any]] = [{**call, "id": f"s{x}"} for x in range(n)]
    content += [{"type": "web_search_tool_result", "tool_use_id": f"r{x}", "content": []} for x in range(n)]
    body = json.dumps({"type": "message", "content": content, "stop_reason": "end_turn"}).encode()

    def read() -> Any:
        reader = MessagesReader("m", None, streamed=False, ends=Ends())
        reader.feed(body)
        return reader.finish()

    return read


@path
def an_answer_of_bedrocks_of_many_blocks_in_small_pieces(n: int) -> Callable[[], Any]:
    pytest.importorskip("botocore", reason="the extra bedrock is not installed")
    from kern.models.bedrock._decode import ConverseReader
    from tests.models.bedrock_wire import frame

    events = [frame("contentBlockDelta", contentBlockIndex=x, delta={"text": "x"}) for x in range(n // 4)]
    events.append(frame("contentBlockDelta", contentBlockIndex=0, delta={"text": "x" * 60 * n}))
    body = b"".join([*events, frame("messageStop", stopReason="end_turn"), frame("metadata", usage={})])

    def read() -> Any:
        reader = ConverseReader("m", None, streamed=True, ends=Ends())
        for at in range(0, len(body), 50):
            reader.feed(body[at : at + 50])
        return reader.finish()

    return read


@path
def a_docstring_of_many_parameters(n: int) -> Callable[[], Any]:
    google = "Do.\n\nArgs:\n" + "".join(f"    p{x}: What it is.\n        More.\n" for x in range(n))
    numpy = "Do.\n\nParameters\n----------\n" + "".join(f"p{x} : int\n    What it is.\n" for x in range(n))
    sphinx = "Do.\n\n" + "".join(f":param p{x}: What it is.\n    More.\n" for x in range(n))
    return lambda: [parse_docstring(text) for text in (google, numpy, sphinx)]


@path
def personal_data(n: int) -> Callable[[], Any]:
    guardrail = PIIDetectionGuardrail(mask_pii=True)
    return lambda: guardrail.masked("a@b.cd 1234 5678 " * n + "1-" * n + "a." * n + "@" * n)


@path
def members_of_one_name(n: int) -> Callable[[], Any]:
    team = Team([Agent(name="same") for _ in range(n)])
    return lambda: len(team._known_members())


@path
def tasks_that_depend_on_each_other(n: int) -> Callable[[], Any]:
    tasks = [
        {"id": x, "title": "t", "description": "", "depends_on": [x - 1], "result": "r"} for x in range(n)
    ]

    def word() -> None:
        known = _by_id(tasks)
        for task in tasks:
            _wording(task, known)

    return word


# Events and the terminal

SOURCE = EventSource("r", "s", agent_id="a", agent_name="A", path=("A",))


@path
def the_buffer_of_events(n: int) -> Callable[[], Any]:
    async def through() -> None:
        buffer = EventBuffer()
        for _ in range(n):
            buffer.put(RunContentEvent(SOURCE, "x"))
        while buffer.items:
            await buffer.ready()
            buffer.pop()

    return lambda: asyncio.run(through())


def calls(n: int) -> list[ToolExecution]:
    return [ToolExecution(tool_call_id=f"c{x}", tool_name="f", tool_args={"x": x}) for x in range(n)]


def show(view: Any, n: int) -> None:
    with view:
        view.event(RunStartedEvent(SOURCE))
        made = calls(n)
        for call in made:
            view.event(ToolCallStartedEvent(SOURCE, call))
        for call in made:
            view.event(ToolCallCompletedEvent(SOURCE, call))
        for _ in range(n):
            view.event(RunContentEvent(SOURCE, "word \n"))
        output = RunOutput(run_id="r", session_id="s", agent_id="a", agent_name="A", content="word \n" * n)
        view.finish(output)


@path
def plain_text(n: int) -> Callable[[], Any]:
    return lambda: show(PlainView("m", ViewOptions(), stream=True, file=io.StringIO()), n)


@path
def panels(n: int) -> Callable[[], Any]:
    console = Console(file=io.StringIO(), width=80, color_system=None)
    return lambda: show(open_view("m", ViewOptions(), stream=True, console=console), n)


@path
def text_made_harmless(n: int) -> Callable[[], Any]:
    return lambda: (clean("a\x1b\r\n\x00" * n), first_line("\n" * n + "a" * n, 200))


# Whole runs


def many_calls(n: int) -> Callable[[], Awaitable[Any]]:
    answer = ModelResponse.of(None, *(ToolCall("same", "nosuch", "{}") for _ in range(n)))
    return lambda: Agent(model=ScriptedModel([answer, "done"])).arun("x")


def many_changes(n: int) -> Callable[[], Awaitable[Any]]:
    async def change(run_context: Any) -> str:
        numbers = run_context.session_state["x"]
        numbers[:] = halves(len(numbers))[1]
        return "ok"

    model = FunctionModel(
        lambda request: "done" if request.messages[-1].role == "tool" else tool_call("change")
    )
    state = {"x": list(range(n))}
    return lambda: Agent(model=model, tools=[change], session_state=state).arun("go")


class Numbers(pydantic.BaseModel):
    numbers: list[int]


def a_structured_stream(n: int) -> Callable[[], Awaitable[Any]]:
    text = '{"numbers": [' + ", ".join(map(str, range(n))) + "]}"

    async def go() -> None:
        agent = Agent(model=ScriptedModel([text]), output_schema=Numbers)
        async for _ in agent.arun("x", stream=True):
            pass

    return go


def run_of(make: Callable[[int], Callable[[], Awaitable[Any]]]) -> Path_:
    def prepare(n: int) -> Callable[[], Any]:
        work = make(n)

        async def go() -> None:
            await work()

        return lambda: asyncio.run(go())

    return prepare


for whole in (many_calls, many_changes, a_structured_stream):
    PATHS[f"a run: {whole.__name__.replace('_', ' ')}"] = run_of(whole)


KERN = str(Path(__file__).resolve().parents[1] / "kern")


def lines_of(work: Callable[[], Any]) -> int:
    """How many lines of Kern's own Python `work` executes on this thread."""
    count = 0

    def line(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal count
        if event == "line":
            count += 1
        return line

    def entered(frame: FrameType, event: str, arg: Any) -> Any:
        return (
            line
            if frame.f_code.co_filename.startswith(KERN) or "difflib" in frame.f_code.co_filename
            else None
        )

    previous = sys.gettrace()
    sys.settrace(entered)
    try:
        work()
    finally:
        sys.settrace(previous)
    return count


@pytest.mark.parametrize("name", PATHS)
def test_four_times_the_input_takes_no_more_than_five_times_the_lines(name: str) -> None:
    lines, seconds = [], []
    for size in (SMALL, LARGE):
        work = PATHS[name](size)
        lines.append(lines_of(work))
        work = PATHS[name](size)
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    print(f"{name}: {lines[0]:,} and {lines[1]:,} lines, {seconds[0]:.3f} and {seconds[1]:.3f} s")
    assert lines[1] <= MOST * lines[0] + 1_000
