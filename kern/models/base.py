"""The model port: the interface of a language model, which is one method, `respond`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from kern._error_text import error_text
from kern.errors import KernError, ModelError, ModelIncompleteError, UsageError
from kern.messages import CacheMark, Citation, Message, ProviderCall, TextPart, ToolCall, number_citations
from kern.tools.server_tool import ServerTool
from kern.usage import Price, Usage

FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "refusal", "paused", "error"]
"""Why an answer ended. "paused": the provider stopped in between; a further request lets it continue."""


@dataclass(slots=True, frozen=True)
class ToolDefinition:
    """The description of a tool that a request sends to the model.

    Args:
        name: Letters, digits, _ and -, at most 64 characters.
        description: When and how to use the tool.
        parameters: The JSON schema of the arguments, of type object.
        strict: Ask the provider to guarantee arguments that fit the schema, if it can.
        cache: The provider may cache the prompt up to the end of this definition.
    """

    name: str
    description: str
    parameters: dict[str, Any]
    strict: bool = False
    cache: CacheMark | None = None


@dataclass(slots=True, frozen=True)
class ResponseFormat:
    """The JSON schema of a structured answer, for providers that enforce one."""

    name: str
    schema: dict[str, Any]
    strict: bool = True


@dataclass(slots=True, frozen=True)
class ModelRequest:
    """One request to a model.

    Args:
        messages: The whole conversation, the system message first.
        tools: The tools that the model may call; Kern runs them.
        server_tools: The tools that the provider itself runs for the model.
        tool_choice: "auto", "none", "required", or {"name": ...}; None leaves it to the provider.
        response_format: The schema of a structured answer; None for text.
        stream: Somebody reads the deltas, so stream the answer. If False, a plain answer is cheaper.
    """

    messages: Sequence[Message]
    tools: Sequence[ToolDefinition] = ()
    tool_choice: str | dict[str, Any] | None = None
    response_format: ResponseFormat | None = None
    stream: bool = False
    server_tools: Sequence[ServerTool] = ()


@dataclass(slots=True)
class ModelResponse:
    """A model's complete answer to one request.

    A refusal has no tool calls: the provider has withdrawn them, perhaps before their arguments were
    complete. They are removed from the message, for every provider.

    Args:
        message: The assistant's message, `tool_calls` and `provider_data` included.
        usage: What the request used; it counts as one request even if `requests` is 0.
        finish_reason: Why the answer ended.
        provider_finish_reason: The same as the provider spells it.
        response_id: The provider's id of the answer.
        model: The id of the model that answered, as the provider reports it.
    """

    message: Message
    usage: Usage = field(default_factory=lambda: Usage(requests=1))
    finish_reason: FinishReason | None = None
    provider_finish_reason: str | None = None
    response_id: str | None = None
    model: str | None = None

    def __post_init__(self) -> None:
        if not self.usage.requests:
            self.usage = replace(self.usage, requests=1)
        for part in self.message.parts:
            if type(part) is TextPart and part.citations:  # as most answers have none
                number_citations(self.message.parts)
                break
        if self.finish_reason == "refusal" and self.message.tool_calls:
            self.message.tool_calls = []
            if not self.message.parts:
                self.message.content = ""

    @classmethod
    def of(
        cls, content: str | None = None, *tool_calls: ToolCall, usage: Usage | None = None
    ) -> ModelResponse:
        """An answer of text, tool calls or both; for `Model` classes of your own and for tests."""
        message = Message("assistant", content, tool_calls=list(tool_calls))
        return cls(message, usage or Usage(requests=1))


class DeltaSink(Protocol):
    """Receives what a model streams. Only `drain` waits; the other methods return at once."""

    def content(self, text: str) -> None:
        """Take the next piece of the answer's text."""

    def reasoning(self, text: str) -> None:
        """Take the next piece of the reasoning."""

    def retrying(self, error: Exception, attempt: int, delay: float) -> None:
        """Take notice that attempt number `attempt` failed with `error`; the next starts in `delay`
        seconds.
        """

    @property
    def full(self) -> bool:
        """Whether the consumer is behind: then `await drain()` before reading more from the connection."""
        ...

    async def drain(self) -> None:
        """Wait until the consumer has caught up."""


@runtime_checkable
class CommentarySink(DeltaSink, Protocol):
    """A `DeltaSink` that also takes commentary; other sinks do not receive it."""

    def commentary(self, text: str) -> None:
        """Take a piece of what the model says about its work, which the provider keeps apart from the
        answer.
        """


@runtime_checkable
class PartSink(CommentarySink, Protocol):
    """A `DeltaSink` that takes everything a model streams. A sink without a method does not receive its
    kind.
    """

    def tool_arguments(self, call_id: str, name: str, delta: str) -> None:
        """Take the next piece of the arguments (JSON text) of a tool call."""

    def provider_call(self, call: ProviderCall) -> None:
        """Take a call that the provider runs itself: once when it begins (status "running"), once at its
        end.
        """

    def citation(self, citation: Citation) -> None:
        """Take a source that the model names for a part of its answer."""


def commentary_of(sink: DeltaSink | None) -> Callable[[str], None] | None:
    """The sink's method `commentary`, or None. Cheaper than `isinstance` with the protocol."""
    return getattr(sink, "commentary", None)


def tool_arguments_of(sink: DeltaSink | None) -> Callable[[str, str, str], None] | None:
    """The sink's method `tool_arguments`, or None."""
    return getattr(sink, "tool_arguments", None)


def provider_call_of(sink: DeltaSink | None) -> Callable[[ProviderCall], None] | None:
    """The sink's method `provider_call`, or None."""
    return getattr(sink, "provider_call", None)


def citation_of(sink: DeltaSink | None) -> Callable[[Citation], None] | None:
    """The sink's method `citation`, or None."""
    return getattr(sink, "citation", None)


class Model(ABC):
    """A language model.

    `id` is the provider's name of the model ("gpt-5.2"), and `provider` the name of the provider ("openai").
    A model object holds no conversation: any number of runs may use it at once, on any event loop.
    """

    id: str
    provider: str

    structured_output: Literal["native", "tool", "none"] = "none"
    """How to get a structured answer. "native": the provider enforces a `ResponseFormat`. "tool": the model
    calls tools reliably, so the answer is the call of a tool. "none": the prompt asks for JSON."""

    structured_beside_tools: bool = True
    """The provider enforces a `ResponseFormat` in requests with tools, too. If False, an agent that has tools
    gets its structured answer as a tool call."""

    has_choice_none: bool = True
    """The provider supports `tool_choice="none"`. If False, a request in which the model may not call a tool
    is sent without tools."""

    price: Price | None = None
    """What its tokens cost; None: take the price from the list of the extra `prices`, if it is known there.
    """

    tells_cost: bool = False
    """The provider reports the cost of an answer, in `Usage.cost`."""

    server_tool_api: ClassVar[str | None] = None
    """The API whose `ServerTool`s the provider runs, such as "openai-responses"; None: it runs none. The
    model has to send `request.server_tools`, which hold tools of this API only."""

    def longest_answer(self) -> int | None:
        """The most tokens that an answer may have; None if the request sets no limit. Budgets reserve
        them.
        """
        return getattr(self, "max_output_tokens", None)

    def check_key(self) -> None:  # noqa: B027 - most models need none
        """Check that the model has the API key that its server needs. Every run calls this first.

        Raises:
            MissingKeyError: The key is missing.
        """

    @abstractmethod
    async def respond(self, request: ModelRequest, sink: DeltaSink) -> ModelResponse:
        """Answer one request.

        With `request.stream`, put deltas into `sink` as they arrive, and return the complete answer as well.
        Do not retry an attempt after a delta was put. Never retry an answer that the provider cut at a limit
        or by a filter: it would be cut again.

        Raises:
            ModelError: The request failed, after all retries that could help.
        """

    def __repr__(self) -> str:
        return f"{type(self).__name__}(id={self.id!r})"


def check_price(price: object) -> None:
    """Check the `price` of a model: a wrong one would lose an answer that was paid for.

    Raises:
        UsageError: It is neither None nor a `Price`.
    """
    if price is not None and not isinstance(price, Price):
        raise UsageError(f"price must be a Price(input=..., output=...) from kern, not {price!r}")


_CUT = ("length", "content_filter", "error")
"""The ends of answers that are not whole. The models of Kern raise; one written by hand may only say so."""


async def answered(model: Model, request: ModelRequest, sink: DeltaSink) -> ModelResponse:
    """What the model answers.

    Raises:
        KernError: Whatever it raises.
        ModelIncompleteError: The answer was cut, and asks for calls: nobody knows what is missing of them.
    """
    try:
        response = await model.respond(request, sink)
    except KernError:
        raise
    except Exception as error:
        raise ModelError(error_text(error), provider=model.provider, model=model.id) from error
    if response.finish_reason in _CUT and response.message.tool_calls:
        reason = response.finish_reason
        raise ModelIncompleteError(
            f"the answer was cut ({reason}) and asks for tool calls; none of them is carried out",
            reason="content_filter" if reason == "content_filter" else "max_output_tokens",
            usage=response.usage,
            content=response.message.content or "",
            provider=model.provider,
            model=model.id,
        )
    return response
