"""`ScriptedModel` and `FunctionModel`: models for unit tests, which answer inside the process, without
HTTP.
"""

from __future__ import annotations

import asyncio
import inspect
from abc import abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import Literal, TypeAlias

from kern._error_text import counted
from kern._keywords import ChecksArguments
from kern.errors import UsageError
from kern.messages import Message, ProviderCall, TextPart, ToolCall
from kern.models.base import (
    DeltaSink,
    Model,
    ModelRequest,
    ModelResponse,
    citation_of,
    commentary_of,
    provider_call_of,
)
from kern.testing.answers import words

ModelAnswer: TypeAlias = str | ToolCall | ModelResponse | Exception
"""An answer of a test model: a text, one tool call, a `ModelResponse` (see its `of`), or an error to
raise."""

Play: TypeAlias = Callable[[ModelRequest], ModelAnswer | Awaitable[ModelAnswer]]
"""A function, sync or async, that returns the answer to a request."""


class _PlayedModel(ChecksArguments, Model):
    """Records the requests, and streams each answer word by word."""

    structured_output: Literal["native", "tool", "none"] = "native"

    def __init__(self, *, id: str, provider: str) -> None:
        self.id = id
        self.provider = provider
        self.requests: list[ModelRequest] = []

    @abstractmethod
    def _next(self) -> ModelAnswer | Play:
        """The answer to the request that was recorded last."""

    async def respond(self, request: ModelRequest, sink: DeltaSink) -> ModelResponse:
        """Answer one request; see `Model.respond`.

        Raises:
            UsageError: No answer is left, or the answer has a wrong type.
            Exception: The error in the script, or raised by the function.
        """
        self.requests.append(replace(request, messages=tuple(request.messages)))
        answer = self._next()
        if callable(answer):
            played = answer(request)
            answer = await played if inspect.isawaitable(played) else played
        response = _as_response(answer)
        if request.stream:
            await _put(response, sink)
        return response


class ScriptedModel(_PlayedModel):
    """A model that returns the answers of a list, in order.

        model = ScriptedModel([tool_call("add_item", item="milk"), "It is on the list."])
        await Agent(model=model, tools=[add_item]).arun("Milk, please")
        model.assert_exhausted()

    A streamed request receives the words one by one. `requests` is the list of all requests so far.

    Args:
        answers: The answers; a function among them is called with the request and returns the answer.
        id: The model's name.
        provider: The provider's name.
    """

    def __init__(
        self, answers: Iterable[ModelAnswer | Play], *, id: str = "scripted", provider: str = "test"
    ) -> None:
        if isinstance(answers, str):
            raise UsageError("ScriptedModel needs a list of answers, not a str: ScriptedModel(['...'])")
        super().__init__(id=id, provider=provider)
        self._answers = deque(answers)
        self._unexpected = 0

    @property
    def remaining(self) -> int:
        """How many answers are left."""
        return len(self._answers)

    def assert_exhausted(self) -> None:
        """Check that there was exactly one request for each answer.

        Raises:
            AssertionError: Answers are left, or there were more requests than answers.
        """
        if self._unexpected:
            raise AssertionError(
                f"{self!r} received {counted(self._unexpected, 'more requests')} than it has answers"
            )
        if self._answers:
            left = f"{self!r} did not use {counted(len(self._answers), 'answers')}"
            raise AssertionError(f"{left}, the next is {self._answers[0]!r}; requests: {len(self.requests)}")

    def _next(self) -> ModelAnswer | Play:
        if self._answers:
            return self._answers.popleft()
        self._unexpected += 1
        request = self.requests[-1]
        raise UsageError(
            f"{self!r} has no answer left for request number {len(self.requests)}; its last message is "
            f"{request.messages[-1] if request.messages else None}"
        )


class FunctionModel(_PlayedModel):
    """A model whose answers a function returns.

        def play(request: ModelRequest) -> ModelAnswer:
            return "done" if request.messages[-1].role == "tool" else tool_call("add_item", item="milk")

        model = FunctionModel(play)

    Args:
        function: Called with each request; sync or async. Concurrent requests call it concurrently.
        id: The model's name.
        provider: The provider's name.
    """

    def __init__(self, function: Play, *, id: str = "function", provider: str = "test") -> None:
        super().__init__(id=id, provider=provider)
        self._function = function

    def _next(self) -> ModelAnswer | Play:
        return self._function


def _as_response(answer: ModelAnswer) -> ModelResponse:
    match answer:
        case ModelResponse():
            return answer
        case str():
            return ModelResponse.of(answer)
        case ToolCall():
            return ModelResponse.of(None, answer)
        case Exception():
            raise answer
    raise UsageError(f"an answer must be a str, ToolCall, ModelResponse or Exception, not {answer!r:.100}")


async def _put(response: ModelResponse, sink: DeltaSink) -> None:
    """Stream the answer; after each word other tasks may run, as between two reads from a socket."""
    message = response.message
    spoken: list[tuple[Callable[[str], None], str | None]]
    spoken = [(sink.reasoning, message.reasoning_content), (sink.content, message.content)]
    if (put_commentary := commentary_of(sink)) is not None:
        spoken.insert(1, (put_commentary, message.commentary))
    _put_parts(message, sink)
    for put, text in spoken:
        for word in words(text or ""):
            put(word)
            if sink.full:
                await sink.drain()
            await asyncio.sleep(0)


def _put_parts(message: Message, sink: DeltaSink) -> None:
    """Put the calls of the provider and the citations into the sink."""
    tell, cite = provider_call_of(sink), citation_of(sink)
    for part in message.parts:
        if isinstance(part, ProviderCall) and tell is not None:
            tell(replace(part, status="running", result=None))
            tell(part)
        elif isinstance(part, TextPart) and cite is not None:
            for citation in part.citations:
                cite(citation)
