"""`ScriptedModel` and `FunctionModel`."""

from __future__ import annotations

import asyncio

import pytest

from kern.errors import ModelServerError, UsageError
from kern.messages import Message, ToolCall
from kern.models.base import ModelRequest, ModelResponse
from kern.testing import FunctionModel, ModelAnswer, ScriptedModel, tool_call


class Sink:
    """Keeps what is put into it; `room` words, then it is full until drained."""

    def __init__(self, room: int = 10**6) -> None:
        self.room = self.left = room
        self.pieces: list[str] = []
        self.thoughts: list[str] = []

    @property
    def full(self) -> bool:
        return self.left == 0

    def content(self, text: str) -> None:
        assert not self.full
        self.left -= 1
        self.pieces.append(text)

    def reasoning(self, text: str) -> None:
        self.thoughts.append(text)

    def retrying(self, error: Exception, attempt: int, delay: float) -> None:
        raise AssertionError("a played model never tries again")

    async def drain(self) -> None:
        await asyncio.sleep(0)
        self.left = self.room


def request(text: str = "hi", *, stream: bool = False) -> ModelRequest:
    return ModelRequest([Message("user", text)], stream=stream)


async def test_a_script_gives_texts_calls_responses_and_functions_in_order() -> None:
    call = tool_call("add", item="milk")
    whole = ModelResponse.of("both", call, tool_call("add"))
    model = ScriptedModel(["text", call, whole, lambda asked: asked.messages[-1].content or ""])
    first, second, third, fourth = [await model.respond(request(), Sink()) for _ in range(4)]
    assert first.message.content == "text"
    assert first.usage.requests == 1
    assert second.message.tool_calls == [call]
    assert third is whole
    assert fourth.message.content == "hi"
    model.assert_exhausted()


async def test_an_error_in_a_script_is_raised() -> None:
    model = ScriptedModel([ModelServerError("no luck", status=500), "fine"])
    with pytest.raises(ModelServerError, match="no luck"):
        await model.respond(request(), Sink())
    assert (await model.respond(request(), Sink())).message.content == "fine"


async def test_an_unexpected_request_is_an_error_that_is_not_forgotten() -> None:
    model = ScriptedModel(["only"], id="m1")
    await model.respond(request(), Sink())
    with pytest.raises(UsageError, match=r"no answer left for request number 2.*'once more'"):
        await model.respond(request("once more"), Sink())
    with pytest.raises(AssertionError, match="received 1 more request"):
        model.assert_exhausted()


async def test_answers_that_nobody_asked_for_are_reported() -> None:
    model = ScriptedModel(["one", "two"])
    await model.respond(request(), Sink())
    assert model.remaining == 1
    with pytest.raises(AssertionError, match="the next is 'two'"):
        model.assert_exhausted()


async def test_a_streamed_answer_comes_word_by_word_and_waits_for_a_full_sink() -> None:
    response = ModelResponse.of(" Good  morning,\nAda. ")
    response.message.reasoning_content = "polite words"
    sink = Sink(room=1)
    returned = await ScriptedModel([response]).respond(request(stream=True), sink)
    assert sink.pieces == [" Good", "  morning,", "\nAda.", " "]
    assert sink.thoughts == ["polite", " words"]
    assert returned is response


async def test_an_answer_that_is_not_streamed_puts_nothing_into_the_sink() -> None:
    sink = Sink()
    await ScriptedModel(["Good morning"]).respond(request(), sink)
    assert sink.pieces == []


async def test_recorded_requests_do_not_change_when_the_conversation_goes_on() -> None:
    messages = [Message("user", "hi")]
    model = ScriptedModel(["one", "two"])
    for _ in range(2):
        response = await model.respond(ModelRequest(messages), Sink())
        messages.append(response.message)
    assert [len(asked.messages) for asked in model.requests] == [1, 2]


async def test_a_function_plays_sync_or_async_and_concurrently() -> None:
    everybody = asyncio.Event()

    async def play(asked: ModelRequest) -> ModelAnswer:
        if len(model.requests) == 8:
            everybody.set()
        await everybody.wait()
        return asked.messages[-1].content or ""

    model = FunctionModel(play)
    answers = await asyncio.gather(*(model.respond(request(str(i)), Sink()) for i in range(8)))
    assert [answer.message.content for answer in answers] == [str(i) for i in range(8)]
    sync_model = FunctionModel(lambda asked: ToolCall("1", "f", "{}"))
    assert (await sync_model.respond(request(), Sink())).message.tool_calls[0].name == "f"


async def test_what_is_no_answer_is_named() -> None:
    with pytest.raises(UsageError, match="not None"):
        await FunctionModel(lambda asked: None).respond(request(), Sink())


def test_one_text_is_no_script() -> None:
    with pytest.raises(UsageError, match="a list of answers"):
        ScriptedModel("Hello")


def test_a_model_has_a_name_and_a_provider() -> None:
    model = ScriptedModel([], id="m", provider="p")
    assert (model.id, model.provider, repr(model)) == ("m", "p", "ScriptedModel(id='m')")
