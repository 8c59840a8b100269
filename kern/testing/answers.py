"""What a `ModelServer` answers: text, tool calls, reasoning, delays, and faults."""

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
"""Cuts a body into the HTTP chunks that it is sent in."""

FaultKind = Literal[
    "status", "disconnect", "hang", "cut", "stall", "malformed", "failed", "error_event", "incomplete"
]


def tool_call(name: str, /, **arguments: Any) -> ToolCall:
    """A call that a model asks for, with an id of its own: `tool_call("add_item", item="milk")`."""
    return ToolCall(f"call_{uuid4().hex[:24]}", name, to_json(arguments).decode())


@dataclass(slots=True, frozen=True, kw_only=True)
class Fault:
    """Something that goes wrong: an answer by itself, or the `fault` of an `Answer`.

    Made by its class methods. `after` counts deltas (pieces of text, reasoning or arguments): the fault
    strikes before delta number `after`, or before the end where the answer has fewer.
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
        """An error status, with the body that the real API sends with it.

        Args:
            status: The HTTP status.
            retry_after: The Retry-After header: seconds, or an HTTP date as text.
            message: The error's text, instead of the usual one for the status.
            code: The error's code, such as "insufficient_quota" (for which there is a text, too).
            headers: More headers.
            body: The whole body, instead of the usual JSON: a proxy's HTML, say.
        """
        extra = dict(headers or {})
        if retry_after is not None:
            extra["retry-after"] = retry_after if isinstance(retry_after, str) else f"{retry_after:g}"
        raw = body.encode() if isinstance(body, str) else body
        return cls(kind="status", http_status=status, message=message, code=code, headers=extra, body=raw)

    @classmethod
    def disconnect(cls) -> Fault:
        """The connection is closed before a byte of the answer was sent."""
        return cls(kind="disconnect")

    @classmethod
    def hang(cls) -> Fault:
        """Nothing is ever answered, not even a status, until the client goes away."""
        return cls(kind="hang")

    @classmethod
    def cut(cls, after: int = 0, *, at_byte: int | None = None, clean: bool = False) -> Fault:
        """The answer breaks off.

        Args:
            after: After so many deltas.
            at_byte: After so many bytes of the body instead.
            clean: The HTTP message ends properly, only the protocol's own end is missing, as behind some
                proxies; otherwise the connection is closed in the middle of the message.
        """
        return cls(kind="cut", after=after, at_byte=at_byte, clean=clean)

    @classmethod
    def stall(cls, after: int = 0, *, at_byte: int | None = None) -> Fault:
        """After so many deltas (or bytes) nothing more is sent, until the client goes away."""
        return cls(kind="stall", after=after, at_byte=at_byte)

    @classmethod
    def malformed(cls, after: int = 0) -> Fault:
        """The JSON of delta number `after` (of an unstreamed answer: of the body) is cut short."""
        return cls(kind="malformed", after=after)

    @classmethod
    def failed(cls, after: int = 0, *, code: str = "server_error", message: str | None = None) -> Fault:
        """The provider gives up: `response.failed`; in Chat Completions an `error` object, or status 500."""
        return cls(kind="failed", after=after, code=code, message=message)

    @classmethod
    def error_event(cls, after: int = 0, *, code: str = "server_error", message: str | None = None) -> Fault:
        """An `error` event, then `response.failed`, as the real API does; without a stream a status 500."""
        return cls(kind="error_event", after=after, code=code, message=message)

    @classmethod
    def incomplete(
        cls, after: int = 0, *, reason: Literal["max_output_tokens", "content_filter"] = "max_output_tokens"
    ) -> Fault:
        """The answer is ended early, and says so: `response.incomplete`, or finish_reason "length"."""
        return cls(kind="incomplete", after=after, code=reason)


@dataclass(slots=True, frozen=True)
class Answer:
    """One answer of a model.

    Args:
        text: What it says.
        tool_calls: What it asks to be called; see `tool_call`.
        reasoning: Its reasoning: a summary in Responses, `reasoning_content` in Chat Completions (as
            compatible servers send it; OpenAI's own shows none there).
        commentary: What it says about its work before text and calls: in Responses a message of its own with
            the phase "commentary", in Chat Completions, which has no such thing, the beginning of the text.
        provider_calls: What the provider has done itself before the text, such as
            `ProviderCall("", "web_search", '{"query": "..."}')`: output items in Responses, `server_tool_use`
            blocks and their results at Anthropic, code and grounding at Gemini, and in Chat Completions
            `executed_tools`, as Groq has them.
        finish_reason: The word for its end, instead of the usual one: `finish_reason` in Chat Completions,
            `status` in Responses, whose way to say "length" is `Fault.incomplete`.
        usage: What is reported as used; None counts roughly (a delta is a token).
        pieces: How the text is cut into deltas; None cuts it into words.
        latency: Seconds before the first byte.
        pace: Seconds between two deltas of a stream.
        interleave: The arguments of several calls arrive in turns, not one call after the other.
        split: How a body is cut into HTTP chunks: `split_at`, `split_every`, `split_randomly`. None sends
            a chunk per event.
        fault: What goes wrong.
        headers: More headers of the response.
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
"""What a script holds and a function returns: a text, one call, or the whole thing."""


def as_answer(reply: Reply) -> Answer:
    """The whole thing.

    Raises:
        TypeError: It is no `Reply`.
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
    raise TypeError(f"an answer is a str, ToolCall, Answer or Fault, not {type(reply).__name__}")


def split_every(size: int) -> Splitter:
    """Chunks of `size` bytes."""

    def split(body: bytes) -> list[bytes]:
        return [body[start : start + size] for start in range(0, len(body), size)]

    return split


def split_at(*positions: int) -> Splitter:
    """Chunks that end at these byte positions."""

    def split(body: bytes) -> list[bytes]:
        edges = sorted({0, len(body), *(min(position, len(body)) for position in positions)})
        return [body[start:end] for start, end in pairwise(edges)]

    return split


def split_randomly(seed: int, *, largest: int = 64) -> Splitter:
    """Chunks of 1 to `largest` bytes; the same ones for the same seed."""

    def split(body: bytes) -> list[bytes]:
        dice = random.Random(seed)  # noqa: S311  # nobody's secret
        chunks, start = [], 0
        while start < len(body):
            end = start + dice.randint(1, largest)
            chunks.append(body[start:end])
            start = end
        return chunks

    return split


def words(text: str) -> list[str]:
    """The text in pieces, each a word with the space before it; joined they are the text."""
    return re.findall(r"\s*\S+|\s+", text)
