"""The answers of a `ModelServer`: text, tool calls, reasoning, delays, and faults."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal, TypeAlias
from uuid import uuid4

from pydantic_core import to_json

from kern.messages import ProviderCall, ToolCall
from kern.usage import Usage

Splitter: TypeAlias = Callable[[bytes], Iterable[bytes]]
"""Splits a body into the HTTP chunks in which it is sent."""

FaultKind = Literal[
    "status", "disconnect", "hang", "cut", "stall", "malformed", "failed", "error_event", "incomplete"
]


def tool_call(name: str, /, **arguments: Any) -> ToolCall:
    """A tool call of a model, with a new id: `tool_call("add_item", item="milk")`."""
    return ToolCall(f"call_{uuid4().hex[:24]}", name, to_json(arguments).decode())


@dataclass(slots=True, frozen=True, kw_only=True)
class Fault:
    """A failure of the provider: an answer by itself, or the `fault` of an `Answer`.

    Make it with one of the class methods. `after` is the number of deltas (pieces of text, reasoning or
    arguments) that are sent before the fault; if the answer has fewer, the fault comes before its end.
    """

    kind: FaultKind
    after: int = 0
    at_byte: int | None = None
    clean: bool = False
    http_status: int = 200
    message: str | None = None
    code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None

    @classmethod
    def status(
        cls,
        status: int,
        *,
        retry_after: float | str | None = None,
        message: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | str | None = None,
    ) -> Fault:
        """The server answers with an error status, and with the body that the real API sends.

        Args:
            status: The HTTP status.
            retry_after: The value of the Retry-After header: seconds, or an HTTP date as text.
            message: The error's text; None: the usual one for the status.
            code: The error's code, such as "insufficient_quota", which also has a usual text.
            headers: Further headers.
            body: The whole body, instead of the usual JSON: a proxy's HTML, say.
        """
        extra = dict(headers or {})
        if retry_after is not None:
            extra["retry-after"] = retry_after if isinstance(retry_after, str) else f"{retry_after:g}"
        raw = body.encode() if isinstance(body, str) else body
        return cls(kind="status", http_status=status, message=message, code=code, headers=extra, body=raw)

    @classmethod
    def disconnect(cls) -> Fault:
        """The server closes the connection before it sends a byte of the answer."""
        return cls(kind="disconnect")

    @classmethod
    def hang(cls) -> Fault:
        """The server never answers, not even with a status, until the client disconnects."""
        return cls(kind="hang")

    @classmethod
    def cut(cls, after: int = 0, *, at_byte: int | None = None, clean: bool = False) -> Fault:
        """The server cuts the answer off.

        Args:
            after: The number of deltas to send before.
            at_byte: The number of bytes of the body to send before, instead.
            clean: End the HTTP message properly, so that only the protocol's own end is missing, as some
                proxies do. If False, the connection is closed in the middle of the message.
        """
        return cls(kind="cut", after=after, at_byte=at_byte, clean=clean)

    @classmethod
    def stall(cls, after: int = 0, *, at_byte: int | None = None) -> Fault:
        """After this number of deltas or bytes the server sends nothing more, until the client
        disconnects.
        """
        return cls(kind="stall", after=after, at_byte=at_byte)

    @classmethod
    def malformed(cls, after: int = 0) -> Fault:
        """The JSON of delta number `after` is cut short; of an answer without a stream, the JSON of the
        body.
        """
        return cls(kind="malformed", after=after)

    @classmethod
    def failed(cls, after: int = 0, *, code: str = "server_error", message: str | None = None) -> Fault:
        """The provider fails: `response.failed`; in Chat Completions an `error` object, or status 500."""
        return cls(kind="failed", after=after, code=code, message=message)

    @classmethod
    def error_event(cls, after: int = 0, *, code: str = "server_error", message: str | None = None) -> Fault:
        """An `error` event and then `response.failed`, as the real API sends it; without a stream status
        500.
        """
        return cls(kind="error_event", after=after, code=code, message=message)

    @classmethod
    def incomplete(
        cls, after: int = 0, *, reason: Literal["max_output_tokens", "content_filter"] = "max_output_tokens"
    ) -> Fault:
        """The provider ends the answer early and says so: `response.incomplete`, or finish_reason
        "length".
        """
        return cls(kind="incomplete", after=after, code=reason)


@dataclass(slots=True, frozen=True)
class Answer:
    """One answer of a model.

    Args:
        text: The text.
        tool_calls: The tool calls; see `tool_call`.
        reasoning: The reasoning: a summary in Responses, `reasoning_content` in Chat Completions, where
            compatible servers send it, but not OpenAI itself.
        commentary: Text about the model's work before the answer and the calls: in Responses a message with
            the phase "commentary"; in Chat Completions, which has none, the beginning of the text.
        provider_calls: Calls that the provider ran before the text, such as
            `ProviderCall("", "web_search", '{"query": "..."}')`: output items in Responses, `server_tool_use`
            blocks and their results at Anthropic, server tools and their results in Bedrock's Converse, code
            and grounding at Gemini, and in Chat Completions `executed_tools`, as Groq sends them.
        finish_reason: The finish reason, instead of the usual one: `finish_reason` in Chat Completions,
            `status` in Responses. For a cut answer in Responses use `Fault.incomplete`.
        usage: The usage to report; None: a rough count, one token per delta.
        pieces: The deltas of the text; None: one per word.
        latency: Seconds before the first byte.
        pace: Seconds between two deltas of a stream.
        interleave: Send the arguments of several calls in turns, not one call after the other.
        split: How to split a body into HTTP chunks: `split_at`, `split_every` or `split_randomly`. None sends
            one chunk per event.
        fault: The failure to simulate.
        headers: Further headers of the response.
    """

    text: str | None = None
    tool_calls: Sequence[ToolCall] = field(default=(), kw_only=True)
    reasoning: str | None = field(default=None, kw_only=True)
    commentary: str | None = field(default=None, kw_only=True)
    provider_calls: Sequence[ProviderCall] = field(default=(), kw_only=True)
    finish_reason: str | None = field(default=None, kw_only=True)
    usage: Usage | None = field(default=None, kw_only=True)
    pieces: Sequence[str] | None = field(default=None, kw_only=True)
    latency: float = field(default=0.0, kw_only=True)
    pace: float = field(default=0.0, kw_only=True)
    interleave: bool = field(default=False, kw_only=True)
    split: Splitter | None = field(default=None, kw_only=True)
    fault: Fault | None = field(default=None, kw_only=True)
    headers: Mapping[str, str] = field(default_factory=dict, kw_only=True)


Reply: TypeAlias = str | ToolCall | Answer | Fault
"""An answer in a script, or of a function: a text, one tool call, an `Answer`, or a `Fault`."""


def as_answer(reply: Reply) -> Answer:
    """Convert a reply to an `Answer`.

    Raises:
        TypeError: It is not a `Reply`.
    """
    match reply:
        case Answer():
            return reply
        case str():
            return Answer(reply)
        case ToolCall():
            return Answer(tool_calls=(reply,))
        case Fault():
            return Answer(fault=reply)
    raise TypeError(f"an answer must be a str, ToolCall, Answer or Fault, not {reply!r:.100}")


def split_every(size: int) -> Splitter:
    """Split a body into chunks of `size` bytes."""

    def split(body: bytes) -> list[bytes]:
        return [body[start : start + size] for start in range(0, len(body), size)]

    return split


def split_at(*positions: int) -> Splitter:
    """Split a body at these byte positions."""

    def split(body: bytes) -> list[bytes]:
        edges = sorted({0, len(body), *(min(position, len(body)) for position in positions)})
        return [body[start:end] for start, end in pairwise(edges)]

    return split


def split_randomly(seed: int, *, largest: int = 64) -> Splitter:
    """Split a body into chunks of 1 to `largest` bytes; the same ones for the same seed."""

    def split(body: bytes) -> list[bytes]:
        dice = random.Random(seed)  # noqa: S311  # needs no secure randomness
        chunks, start = [], 0
        while start < len(body):
            end = start + dice.randint(1, largest)
            chunks.append(body[start:end])
            start = end
        return chunks

    return split


def words(text: str) -> list[str]:
    """Split a text into words, each with the white space before it; joined they are the text."""
    return re.findall(r"\s*\S+|\s+", text)
