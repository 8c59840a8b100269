"""The conformance suite for models: a `Model` is complete when it passes.

Subclass `ModelConformance` in a test module, or `ProviderConformance` if the model calls a provider over the
network. Give the class a fixture `play`: an async function that takes answers and returns a model which
receives them from its provider, in order. `kern.testing.ModelServer` is such a provider for the protocols of
OpenAI, Anthropic and Gemini; for another protocol write a server or an `httpx.MockTransport`.

    class TestMyModel(ProviderConformance):
        @pytest.fixture
        async def play(self):
            async with AsyncExitStack() as stack:
                async def play(*answers):
                    server = await stack.enter_async_context(ModelServer(answers))
                    return MyModel("some-id", base_url=server.base_url, api_key=self.api_key)
                yield play

An answer is a text, a `ToolCall`, an `Answer` with `text`, `tool_calls`, `reasoning` and `usage`, or a
`Fault`: `hang`, and for a provider also `status`, `cut` and `incomplete`. The provider must be reachable from
several event loops.

The tests are coroutines: run them with the pytest plugin of anyio or with pytest-asyncio, in auto mode.
"""

# ruff: noqa: D102  # the name of a test says what it is for

from __future__ import annotations

import asyncio
import copy
import json
from typing import ClassVar

from kern.errors import ModelError
from kern.messages import Message
from kern.models.base import Model, ModelRequest, ToolDefinition
from kern.testing._db_rows import raises
from kern.testing._model_provider import FAILURES, ErrorConformance
from kern.testing._model_sink import Play, RecordingSink, ask
from kern.testing.answers import Answer, Fault, tool_call
from kern.testing.leaks import no_leaks
from kern.usage import Usage

__all__ = ["FAILURES", "ModelConformance", "Play", "ProviderConformance", "RecordingSink"]

ADD = ToolDefinition("add", "Add an item.", {"type": "object", "properties": {"item": {"type": "string"}}})
TEXT = " It is \U0001f6d2 'ä' \u2028 \\n\n\nand \"that\"  is all.\n"


class ModelConformance:
    """Tests for every model. See the module's docstring."""

    async def test_it_says_what_it_is(self, play: Play) -> None:
        model = await play()
        assert isinstance(model, Model)
        assert model.id
        assert model.provider
        assert model.structured_output in ("native", "tool", "none")
        assert model.id in repr(model)

    async def test_an_answer_comes_whole_and_nothing_is_put_into_the_sink_unless_asked(
        self, play: Play
    ) -> None:
        sink = RecordingSink()
        response = await (await play(TEXT)).respond(ask("Hi"), sink)
        assert response.message.role == "assistant"
        assert response.message.content == TEXT
        assert response.message.tool_calls == []
        assert sink.pieces == []

    async def test_the_pieces_of_a_streamed_answer_are_the_answer(self, play: Play) -> None:
        sink = RecordingSink()
        response = await (await play(TEXT)).respond(ask("Hi", stream=True), sink)
        assert response.message.content == TEXT
        assert sink.text("content") == TEXT
        assert "" not in [text for _, text in sink.pieces]

    async def test_the_answer_is_the_same_streamed_or_not(self, play: Play) -> None:
        call = tool_call("add", item="milk \U0001f95b")
        answer = Answer("I add milk.", tool_calls=[call], usage=Usage(input_tokens=7, output_tokens=5))
        model = await play(answer, answer)
        plain = await model.respond(ask("Hi", tools=[ADD]), RecordingSink())
        streamed = await model.respond(ask("Hi", tools=[ADD], stream=True), RecordingSink())
        for response in (plain, streamed):
            (made,) = response.message.tool_calls
            assert (made.name, json.loads(made.arguments)) == ("add", {"item": "milk \U0001f95b"})
            assert response.message.content == "I add milk."
            assert (response.usage.input_tokens, response.usage.output_tokens) == (7, 5)
            assert response.usage.requests == 1

    async def test_calls_keep_their_order_and_have_ids_of_their_own(self, play: Play) -> None:
        calls = [tool_call("add", item=item) for item in ("milk", "eggs", "milk")]
        response = await (await play(Answer(tool_calls=calls))).respond(
            ask("Hi", tools=[ADD], stream=True), RecordingSink()
        )
        made = response.message.tool_calls
        assert [json.loads(call.arguments)["item"] for call in made] == ["milk", "eggs", "milk"]
        assert len({call.id for call in made if call.id}) == 3
        assert not response.message.content

    async def test_a_call_without_arguments_has_arguments_that_are_none_or_an_empty_object(
        self, play: Play
    ) -> None:
        response = await (await play(tool_call("now"))).respond(ask("Hi", tools=[NOW]), RecordingSink())
        (made,) = response.message.tool_calls
        assert json.loads(made.arguments or "{}") == {}

    async def test_an_answer_can_be_stored_and_sent_back_with_the_results_of_its_calls(
        self, play: Play
    ) -> None:
        calls = [tool_call("add", item="milk"), tool_call("add", item="eggs")]
        model = await play(Answer("Two.", tool_calls=calls), "Done.")
        request = ask("Milk and eggs, please", tools=[ADD])
        response = await model.respond(request, RecordingSink())
        stored = Message.from_dict(json.loads(json.dumps(response.message.to_dict())))
        results = [
            Message("tool", f"added {number}", tool_call_id=call.id, tool_name=call.name)
            for number, call in enumerate(stored.tool_calls)
        ]
        after = ModelRequest([*request.messages, stored, *results], tools=[ADD])
        assert (await model.respond(after, RecordingSink())).message.content == "Done."

    async def test_a_request_is_left_as_it_is(self, play: Play) -> None:
        request = ask("Hi", tools=[ADD], stream=True)
        before = copy.deepcopy(request)
        await (await play("Hello")).respond(request, RecordingSink())
        assert request == before

    async def test_a_consumer_that_is_behind_is_waited_for(self, play: Play) -> None:
        sink = RecordingSink(slow=True)
        text = " ".join(f"word{number}" for number in range(300))
        response = await (await play(text)).respond(ask("Hi", stream=True), sink)
        assert sink.drained > 0
        assert sink.text("content") == response.message.content == text

    async def test_a_cancelled_request_ends_at_once_and_leaves_nothing_behind(self, play: Play) -> None:
        model = await play(Fault.hang(), "Hello")
        async with no_leaks():
            task = asyncio.create_task(model.respond(ask("Hi", stream=True), RecordingSink()))
            await asyncio.sleep(0.05)
            assert not task.done()
            task.cancel()
            done, _ = await asyncio.wait([task], timeout=5.0)
            assert done, "the request goes on"
            assert task.cancelled()
        assert (await model.respond(ask("Hi"), RecordingSink())).message.content == "Hello"

    async def test_requests_at_the_same_time_do_not_mix(self, play: Play) -> None:
        texts = [f"answer {number} " * 5 for number in range(12)]
        model = await play(*texts)
        sinks = [RecordingSink() for _ in texts]
        responses = await asyncio.gather(*(model.respond(ask("Hi", stream=True), sink) for sink in sinks))
        assert sorted(str(response.message.content) for response in responses) == sorted(texts)
        for response, sink in zip(responses, sinks, strict=True):
            assert sink.text("content") == response.message.content

    async def test_one_object_serves_several_event_loops(self, play: Play) -> None:
        model = await play(*(["Hello"] * 8))
        heard: list[str | None] = []

        async def twice() -> None:
            for _ in range(2):
                response = await model.respond(ask("Hi"), RecordingSink())
                heard.append(response.message.content)

        others = [asyncio.to_thread(lambda: asyncio.run(twice())) for _ in range(3)]
        await asyncio.gather(twice(), *others)
        assert heard == ["Hello"] * 8


NOW = ToolDefinition("now", "Say the time.", {"type": "object", "properties": {}})


class ProviderConformance(ModelConformance, ErrorConformance):
    """Tests for every model that calls a provider over the network."""

    api_key: ClassVar[str] = "sk-conformance-0123456789abcdef"
    """The API key that the models of the fixture `play` must use."""

    async def test_what_was_shown_is_not_repeated(self, play: Play) -> None:
        model = await play(Answer("one two three four five", fault=Fault.cut(after=3)), "another answer")
        sink = RecordingSink()
        with raises(ModelError):
            await model.respond(ask("Hi", stream=True), sink)
        assert sink.text("content") == "one two three"
        later = await model.respond(ask("Hi"), RecordingSink())
        assert later.message.content == "another answer", "the request was made again after it was shown"
