"""The models of the package pass the conformance suite of the model port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from typing import Any, NoReturn

import pytest

from kern.messages import Message
from kern.models import DeltaSink, Model, ModelRequest, ModelResponse, _transport
from kern.models.anthropic import AnthropicMessages
from kern.models.google import Gemini
from kern.models.openai import OpenAIChat, OpenAIResponses
from kern.testing import FunctionModel, ModelServer, Reply, ScriptedModel
from kern.testing.answers import as_answer
from kern.testing.model import ModelConformance, Play, ProviderConformance
from kern.usage import Usage


class OpenAIConformance(ProviderConformance):
    kind: type[OpenAIChat | OpenAIResponses]

    @pytest.fixture
    async def play(self, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Play]:
        monkeypatch.setattr(_transport, "FIRST_DELAY", 0.0)
        async with AsyncExitStack() as stack:

            async def play(*answers: Reply) -> Model:
                server = await stack.enter_async_context(ModelServer(answers))
                return self.kind("m", base_url=server.base_url, api_key=self.api_key)

            yield play


class TestOpenAIChat(OpenAIConformance):
    kind = OpenAIChat


class TestOpenAIResponses(OpenAIConformance):
    kind = OpenAIResponses


class GeminiConformance(ProviderConformance):
    id: str

    @pytest.fixture
    async def play(self, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Play]:
        monkeypatch.setattr(_transport, "FIRST_DELAY", 0.0)
        async with AsyncExitStack() as stack:

            async def play(*answers: Reply) -> Model:
                server = await stack.enter_async_context(ModelServer(answers))
                return Gemini(self.id, base_url=server.base_url, api_key=self.api_key)

            yield play


class TestGemini2(GeminiConformance):
    id = "gemini-2.5-flash"


class TestGemini3(GeminiConformance):
    id = "gemini-3-pro"


class TestAnthropicMessages(ProviderConformance):
    @pytest.fixture
    async def play(self, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Play]:
        monkeypatch.setattr(_transport, "FIRST_DELAY", 0.0)
        async with AsyncExitStack() as stack:

            async def play(*answers: Reply) -> Model:
                server = await stack.enter_async_context(ModelServer(answers))
                return AnthropicMessages("m", base_url=server.base_url, api_key=self.api_key)

            yield play


async def hang(_: ModelRequest) -> NoReturn:
    await asyncio.Event().wait()
    raise AssertionError


def played(reply: Reply) -> ModelResponse | Callable[[ModelRequest], Coroutine[Any, Any, NoReturn]]:
    answer = as_answer(reply)
    if answer.fault is not None:
        assert answer.fault.kind == "hang"
        return hang
    message = Message("assistant", answer.text, tool_calls=list(answer.tool_calls))
    return ModelResponse(message, answer.usage or Usage())


class TestScriptedModel(ModelConformance):
    @pytest.fixture
    def play(self) -> Play:
        async def play(*answers: Reply) -> Model:
            return ScriptedModel([played(reply) for reply in answers])

        return play


class TestFunctionModel(ModelConformance):
    @pytest.fixture
    def play(self) -> Play:
        async def play(*answers: Reply) -> Model:
            left = [played(reply) for reply in answers]

            async def function(request: ModelRequest) -> ModelResponse:
                answer = left.pop(0)
                return await answer(request) if callable(answer) else answer

            return FunctionModel(function)

        return play


class Wrong(ScriptedModel):
    """Breaks one rule."""

    def __init__(self, answers: list[Any], rule: str) -> None:
        super().__init__(answers)
        self.rule = rule

    async def respond(self, request: ModelRequest, sink: DeltaSink) -> ModelResponse:
        if self.rule == "changes the request":
            assert isinstance(request.messages, list)
            request.messages.append(Message("user", "?"))
        if self.rule == "puts unasked":
            sink.content("x")
        if self.rule == "swallows a cancellation":
            with suppress(asyncio.CancelledError):
                return await super().respond(request, sink)
            return ModelResponse.of("")
        response = await super().respond(request, sink)
        if self.rule == "puts too much" and request.stream:
            sink.content("x")
        if self.rule == "one id for all":
            for call in response.message.tool_calls:
                call.id = "call_0"
        if self.rule == "no JSON":
            response.message.provider_data = {"x": object()}
        return response


@pytest.mark.parametrize(
    ("rule", "test"),
    [
        ("changes the request", "test_a_request_is_left_as_it_is"),
        ("puts unasked", "test_an_answer_comes_whole_and_nothing_is_put_into_the_sink_unless_asked"),
        ("puts too much", "test_the_pieces_of_a_streamed_answer_are_the_answer"),
        ("one id for all", "test_calls_keep_their_order_and_have_ids_of_their_own"),
        (
            "no JSON",
            "test_an_answer_can_be_stored_and_sent_back_with_the_results_of_its_calls",
        ),
        ("swallows a cancellation", "test_a_cancelled_request_ends_at_once_and_leaves_nothing_behind"),
    ],
)
async def test_a_model_that_breaks_a_rule_is_found_out(rule: str, test: str) -> None:
    async def play(*answers: Reply) -> Model:
        return Wrong([played(reply) for reply in answers], rule)

    with pytest.raises((AssertionError, TypeError)):
        await getattr(ModelConformance(), test)(play)
