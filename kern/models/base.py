"""The model port: one method, `respond`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from kern.messages import CacheMark, Citation, Message, ProviderCall, ToolCall
from kern.tools.server_tool import ServerTool
from kern.usage import Price, Usage

FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "refusal", "paused", "error"]
"""Why an answer ended. "paused": the provider wants to be asked again, to go on where it stopped."""


@dataclass(slots=True, frozen=True)
class ToolDefinition:
    """A tool as a model is told of it.

    Args:
        name: Letters, digits, _ and -.
        description: When and how to use it.
        parameters: A JSON schema of type object.
        strict: Ask the provider to follow the schema to the letter, where it can.
        cache: The provider may cache the prompt up to the end of this definition.
    """

    name: str
    description: str
    parameters: dict[str, Any]
    strict: bool = False
    cache: CacheMark | None = None


@dataclass(slots=True, frozen=True)
class ResponseFormat:
    """The JSON schema that the answer has to follow, for providers that enforce one."""

    name: str
    schema: dict[str, Any]
    strict: bool = True


@dataclass(slots=True, frozen=True)
class ModelRequest:
    """One turn: all that a model is to be sent.

    Args:
        messages: The whole conversation, the system message first.
        tools: What the model may call.
        server_tools: What the provider itself runs for the model.
        tool_choice: "auto", "none", "required", or {"name": ...}; None leaves it to the provider.
        response_format: The schema of a structured answer.
        stream: Deltas are wanted: stream over the wire. Otherwise one plain answer is cheaper.
    """

    messages: Sequence[Message]
    tools: Sequence[ToolDefinition] = ()
    tool_choice: str | dict[str, Any] | None = None
    response_format: ResponseFormat | None = None
    stream: bool = False
    server_tools: Sequence[ServerTool] = ()


@dataclass(slots=True)
class ModelResponse:
    """A model's whole answer to one request.

    The calls of a refusal are void: the provider has taken them back, perhaps before their arguments were
    written. They are taken out of the message, whatever the provider.

    Args:
        message: The assistant's message, `tool_calls` and `provider_data` included.
        usage: What the request used; it counts as one request, whether `requests` says so or not.
        finish_reason: Why it ended.
        provider_finish_reason: The provider's own word for it.
        response_id: The provider's id of the answer.
        model: The model that really answered, as the provider names it.
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
        if self.finish_reason == "refusal" and self.message.tool_calls:
            self.message.tool_calls = []
            if not self.message.parts:
                self.message.content = ""

    @classmethod
    def of(
        cls, content: str | None = None, *tool_calls: ToolCall, usage: Usage | None = None
    ) -> ModelResponse:
        """An answer of text, tool calls or both: for models written by hand."""
        message = Message("assistant", content, tool_calls=list(tool_calls))
        return cls(message, usage or Usage(requests=1))


class DeltaSink(Protocol):
    """Where a model puts what it streams. The putting methods never wait."""

    def content(self, text: str) -> None:
        """A piece of the answer."""

    def reasoning(self, text: str) -> None:
        """A piece of the reasoning."""

    def retrying(self, error: Exception, attempt: int, delay: float) -> None:
        """Attempt number `attempt` failed with `error`; the next one starts in `delay` seconds."""

    @property
    def full(self) -> bool:
        """The consumer is behind: `await drain()` before reading more from the wire."""
        ...

    async def drain(self) -> None:
        """Wait until the consumer has caught up."""


@runtime_checkable
class CommentarySink(DeltaSink, Protocol):
    """A `DeltaSink` that also takes what is no part of the answer; one that does not is not told of it."""

    def commentary(self, text: str) -> None:
        """A piece of what the model says about its work, marked by the provider as no part of the answer."""


@runtime_checkable
class PartSink(CommentarySink, Protocol):
    """A `DeltaSink` that takes all that a model streams. One that lacks a method is not told of that."""

    def tool_arguments(self, call_id: str, name: str, delta: str) -> None:
        """A piece of the arguments of a call that the model is asking for."""

    def provider_call(self, call: ProviderCall) -> None:
        """The provider carries out a call itself: told when it begins ("running"), and when it has ended."""

    def citation(self, citation: Citation) -> None:
        """The model says where words of its come from."""


def commentary_of(sink: DeltaSink | None) -> Callable[[str], None] | None:
    """Where `sink` takes commentary; None if it takes none. Costs less than an isinstance of the protocol."""
    return getattr(sink, "commentary", None)


def tool_arguments_of(sink: DeltaSink | None) -> Callable[[str, str, str], None] | None:
    """Where `sink` takes pieces of a call's arguments; None if it takes none."""
    return getattr(sink, "tool_arguments", None)


def provider_call_of(sink: DeltaSink | None) -> Callable[[ProviderCall], None] | None:
    """Where `sink` is told of the calls that the provider carries out; None if nowhere."""
    return getattr(sink, "provider_call", None)


def citation_of(sink: DeltaSink | None) -> Callable[[Citation], None] | None:
    """Where `sink` takes citations; None if it takes none."""
    return getattr(sink, "citation", None)


class Model(ABC):
    """A language model.

    `id` is the provider's name for the model, `provider` the provider's own ("openai"). A model object holds
    no conversation and may serve any number of runs at once, on any event loop.
    """

    id: str
    provider: str

    structured_output: Literal["native", "tool", "none"] = "none"
    """How a structured answer is had: the provider enforces a `ResponseFormat`, or the model calls tools
    reliably, or neither: it is asked for JSON in words."""

    structured_beside_tools: bool = True
    """The provider enforces a `ResponseFormat` also in a request that has tools. Where it does not, an agent
    with tools gets its structured answer by a call of one."""

    has_choice_none: bool = True
    """The provider heeds `tool_choice="none"`. Where it does not, a request in which nothing may be called
    goes out without tools."""

    price: Price | None = None
    """What its tokens cost; None: as the list of the extra `prices` knows it, if it does."""

    tells_cost: bool = False
    """Its provider tells what an answer has cost, in `Usage.cost`."""

    server_tool_api: ClassVar[str | None] = None
    """The API whose `ServerTool`s its provider runs, such as "openai-responses"; None: it runs none. A model
    that names one puts `request.server_tools` into its requests; Kern gives it no others."""

    def longest_answer(self) -> int | None:
        """The most tokens that an answer may have, as far as the request says; it is set aside in budgets."""
        return getattr(self, "max_output_tokens", None)

    def check_key(self) -> None:  # noqa: B027 - most models need none
        """See that the model has the key that its server wants; looked at before a run does anything.

        Raises:
            MissingKeyError: It has none.
        """

    @abstractmethod
    async def respond(self, request: ModelRequest, sink: DeltaSink) -> ModelResponse:
        """Answer one request.

        With `request.stream`, pieces are put into `sink` as they arrive; the whole answer is returned all
        the same. Once a piece was put, a failed attempt is not tried again; nor is, ever, an answer that the
        provider has cut at a limit or by a filter, since it would be cut again.

        Raises:
            ModelError: The request failed, after the retries that make sense.
        """

    def __repr__(self) -> str:
        return f"{type(self).__name__}(id={self.id!r})"
