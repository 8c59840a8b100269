"""The answer of `POST /chat/completions`, streamed or whole, as a `ModelResponse`: no I/O.

The chunks: https://platform.openai.com/docs/api-reference/chat-streaming, with the deviations of Ollama,
vLLM, llama.cpp, LM Studio, DeepSeek, Mistral, OpenRouter and others.
"""

from __future__ import annotations

from typing import Any

from kern._json import json_bytes
from kern.errors import ModelBehaviorError
from kern.messages import Citation, Message, Origin, Part, ReasoningPart, TextPart, ToolCall, number_citations
from kern.models._codes import explain, has_content
from kern.models._ends import Ends, finish_reason_of, says_calls
from kern.models._failures import StreamFault
from kern.models._reading import (
    AnswerReader,
    damaged,
    is_plain,
    merged,
    remark,
    sure_objects,
    sure_text,
    text_beside,
    text_in,
    text_of,
)
from kern.models._text_stream import TextStream, mended_json
from kern.models.base import DeltaSink, ModelResponse, citation_of, provider_call_of, tool_arguments_of
from kern.models.openai._chat_calls import Calls, entries_of, is_function
from kern.models.openai._chat_encode import REASONING_NAMES
from kern.models.openai._chat_shapes import head_of, said_of
from kern.models.openai._chat_usage import usage_of
from kern.models.openai._kept import Kept
from kern.models.openai._spoken import Spoken
from kern.models.servers import OTHER, ChatServer
from kern.usage import Usage

_THINKING = ("thinking", "reasoning")
_LONGEST_KIND = 80
_SURELY_REPEATED = 20  # characters; a shorter last piece may be a new one with the same text
_FIELDS = frozenset(
    {
        *("role", "content", "refusal", "tool_calls", "function_call", "audio", "images", "annotations"),
        *("name", "id", "type", "object", "index", "citations", "reasoning_details", "extra_content"),
        "executed_tools",
        *REASONING_NAMES,
    }
)
"""The fields of a message that are read, or are known not to be an answer."""

_TEXT_FIELDS = ("role", "content")
"""The fields of a message that is only a text."""

_CHUNK_FIELDS = frozenset(
    {
        *("id", "object", "created", "model", "choices", "usage", "system_fingerprint", "service_tier"),
        *("obfuscation", "provider", "nonce", "timings"),
    }
)
_CHOICE_FIELDS = frozenset({"index", "delta", "finish_reason", "logprobs"})
"""The fields of a choice that has only a text delta."""


class ChatReader(AnswerReader):
    """Reads one answer of the Chat Completions API."""

    def __init__(
        self,
        origin: Origin,
        sink: DeltaSink | None,
        *,
        streamed: bool,
        ends: Ends,
        server: ChatServer = OTHER,
    ) -> None:
        super().__init__(origin.model, sink, streamed=streamed)
        self._origin = origin
        self._cite = citation_of(sink)
        self._head: dict[str, Any] | None = None
        self._server = server
        self._ends = ends
        self._calls = Calls(origin, tool_arguments_of(sink if streamed else None))
        self._unknown: set[str] = set()
        self._reasoning_name: str | None = None
        self._refused = False
        self._kept = Kept(origin, streamed=streamed, on_call=provider_call_of(sink))
        self._spoken: Spoken | None = None
        self._finish_reason: Any = None
        self._native_reason: Any = None
        self._usage: Any = None
        self._sources: dict[str, Any] | None = None
        self._message_read = False
        self._whole_read = False
        self._fields: set[str] = set()
        self._words: tuple[str, str | None, int | None] | None = None
        self._usual: tuple[tuple[str, ...], tuple[str, ...]] | None = None
        """The fields of the last chunk, and of its choice, that had only a text delta."""

    def _read_event(self, name: bytes, data: bytes) -> None:
        if data == b"[DONE]":
            self.done = True
            return
        chunk = self._parse(data)
        usual, choices = self._usual, chunk.get("choices")
        if usual is not None and type(choices) is list and len(choices) == 1:
            # A text delta in a chunk like the one before: skip the search for anything else.
            choice = choices[0]
            if type(choice) is dict and (*chunk,) == usual[0] and (*choice,) == usual[1] and not name:
                delta, goes_on = choice["delta"], choice["finish_reason"] is None and not choice.get("index")
                text = delta.get("content") if type(delta) is dict and len(delta) == 1 else None
                fault = chunk.get("usage") is not None or chunk.get("object") == "error"
                if goes_on and not fault and type(text) is str and text:
                    self._content.add(text)
                    return
        self._read_chunk(name, chunk)

    def _read_chunk(self, name: bytes, chunk: dict[str, Any]) -> None:
        if self._head is None or not self._head.get("model"):
            self._head = head_of(self._head, chunk)
        error = chunk.get("error")
        if (error and has_content(error)) or name == b"error" or chunk.get("object") == "error":
            raise StreamFault(*explain(chunk))
        choices = sure_objects(chunk.get("choices"), "choices", self.remarks)
        for choice in choices:
            if choice.get("index"):  # a second answer, which was not requested
                continue
            delta = choice.get("delta")
            if isinstance(delta, dict) and delta:
                self._read_choice(choice, delta, whole=False)
            else:
                # The whole answer in one event: the server does not stream, or repeats at the end what it
                # has streamed.
                whole = choice.get("message") is not None
                self._read_choice(choice, said_of(choice), whole=whole)
        if usage := chunk.get("usage") or chunk.get("x_groq"):
            self._cost(usage.get("usage", usage) if isinstance(usage, dict) else usage)
            self._sources = chunk
        if not choices:
            self._read_aside(chunk)
        elif self._usual is None:
            fields = (*chunk,), (*choices[0],)
            known = _CHUNK_FIELDS.issuperset(fields[0]) and _CHOICE_FIELDS.issuperset(fields[1])
            if known and choices[0].keys() >= {"delta", "finish_reason"}:
                self._usual = fields

    def _read_aside(self, chunk: dict[str, Any]) -> None:
        """Read a chunk without choices: the usage of the answer, or the error of a server."""
        if chunk.get("usage"):
            self._mark_end()
        elif (words := explain(chunk))[0]:
            self._words = words

    def _read_whole(self, answer: dict[str, Any]) -> None:
        if (answer.get("error") and has_content(answer["error"])) or answer.get("object") == "error":
            raise StreamFault(*explain(answer))
        choices = sure_objects(answer.get("choices"), "choices", self.remarks)
        if not choices:
            text, code, status = explain(answer)
            detail = f": {text}" if text else ""
            raise StreamFault(f"the answer is not a chat completion: it has no choices{detail}", code, status)
        self._usage = answer.get("usage")
        self._head = self._sources = answer
        self._read_choice(choices[0], said_of(choices[0]), whole=True)
        self.done = True

    def _read_choice(self, choice: dict[str, Any], said: Any, *, whole: bool) -> None:
        error = choice.get("error")
        if error and has_content(error):
            raise StreamFault(*explain(choice))
        reason = choice.get("finish_reason")
        if isinstance(said, dict):
            content = said.get("content")
            if isinstance(content, str):
                if whole or reason:
                    content = self._unsaid(self._content, content, whole=whole)
                self._content.add(content)
            elif content is not None:
                self._read_parts(content, whole=whole)
            if not content or len(said) > 1:  # the usual delta is text alone
                self._read_rest(said, whole=whole)
            if whole:
                self._whole_read = True
        if usage := choice.get("usage"):
            self._cost(usage)
        if reason:
            if not whole and isinstance(message := choice.get("message"), dict):
                self._read_choice({}, message, whole=True)
            self._finish_reason = self._ends.more_serious(self._finish_reason, reason)
            self._mark_end()
        if reason := choice.get("native_finish_reason"):
            self._native_reason = self._ends.more_serious(self._native_reason, reason)

    def _cost(self, usage: Any) -> None:
        self._usage = usage if self._usage is None else merged(self._usage, usage)

    def _mark_end(self) -> None:
        self._content.mark()
        self._calls.mark()

    def _unsaid(self, stream: TextStream, text: str, *, whole: bool) -> str:
        """Return the new part of a text that may repeat what was read before.

        A whole message may repeat the deltas before it. If it differs from them, they stay, since they were
        shown. The last delta may repeat all others.
        """
        read = stream.whole()
        if not read or not text:
            return text
        if not whole:
            return "" if text == read and len(text) >= _SURELY_REPEATED else text
        if text.startswith(read):
            return text[len(read) :]
        return text if self._whole_read else ""  # a server may call its pieces messages

    def _read_parts(self, content: Any, *, whole: bool) -> None:
        """Read content that is not a text: a typed part, a list of them, or an object that is the answer."""
        texts, thoughts = [], []
        parts = content if isinstance(content, list) else [content]
        if is_plain(content):
            texts.append(json_bytes(content).decode())
            parts = []
        for part in parts:
            if isinstance(part, str):
                texts.append(part)
                continue
            if part is None:
                remark(self.remarks, "null in content is skipped")
                continue
            if not isinstance(part, dict):
                raise damaged(part, "a part of the content", "an object")
            kind = text_of(part.get("type"))
            if kind in _THINKING:
                self._reasoning_name = kind
                thoughts.append(text_in(part.get(kind) or part.get("text") or part.get("content")))
            elif kind == "refusal":
                self._refused = True
                texts.append(sure_text(part.get("refusal"), "a refusal"))
            elif text := text_in(part.get("text")):
                texts.append(text)
            elif isinstance(part.get("text"), int | float):
                raise damaged(part["text"], "the text of a part", "text")
            elif kind not in ("", "text", "output_text", "reference"):
                self._unknown.add(kind[:_LONGEST_KIND])
        for stream, pieces in ((self._reasoning, thoughts), (self._content, texts)):
            text = "".join(pieces)
            stream.add(self._unsaid(stream, text, whole=True) if whole else text)

    def _read_rest(self, said: dict[str, Any], *, whole: bool) -> None:
        self._message_read = True
        for name, value in said.items():
            if value and name not in _TEXT_FIELDS:
                break
        else:
            return
        reasoning = ""
        for name in REASONING_NAMES:
            if isinstance(said.get(name), int | float):
                text_beside(said[name], name, self.remarks)
            if reasoning := text_in(said.get(name)):
                self._reasoning_name = name
                self._reasoning.add(
                    self._unsaid(self._reasoning, reasoning, whole=True) if whole else reasoning
                )
                break
        self._kept.read(said, whole=whole)
        if refusal := sure_text(said.get("refusal"), "the refusal"):
            self._refuse(refusal, whole=whole)
        audio = said.get("audio")
        if isinstance(audio, dict):
            self._say(text_of(audio.get("transcript")), whole=whole)
            self._spoken = self._spoken or Spoken()
            self._spoken.read(audio, self.remarks, whole=whole)
        calls = entries_of(said.get("tool_calls"), self.remarks)
        legacy = said.get("function_call")
        if isinstance(legacy, dict) and not calls:
            calls = [{"index": 0, "function": legacy}]
        if not calls and not reasoning:
            self._read_odd(said, whole=whole)
            return
        known = [call for call in calls if is_function(call)]
        self._unknown.update(
            text_of(call.get("type"))[:_LONGEST_KIND] or "custom" for call in calls if not is_function(call)
        )
        if known:
            (self._calls.add_whole if whole else self._calls.add)(known)

    def _read_odd(self, said: dict[str, Any], *, whole: bool) -> None:
        """Read a text in an unusual field, and note the fields that are unknown."""
        if said.get("tool_calls"):
            self._fields.add("tool_calls")
        if said.keys() <= _FIELDS or "content" in said:
            return
        if text := text_of(said.get("text")):
            self._say(text, whole=whole)
            return
        self._fields.update(
            name[:_LONGEST_KIND]
            for name, value in said.items()
            if name not in _FIELDS and value and isinstance(value, str | list | dict)
        )

    def _refuse(self, text: str, *, whole: bool) -> None:
        self._refused = True
        self._say(text, whole=whole)

    def _say(self, text: str, *, whole: bool) -> None:
        self._content.add(self._unsaid(self._content, text, whole=True) if whole else text)

    def _respond(self) -> ModelResponse:
        content, reasoning = self._content.whole(), self._reasoning.whole()
        usage, _ = self._used()
        if self._words is not None and not self._finish_reason and not (content and self._ends.good("")):
            raise StreamFault(*self._words)
        self._ends.check(self._finish_reason or self._silent_end(usage), self._native_reason, content, usage)
        if not self.done and (self._content.went_on or self._calls.went_on):
            raise StreamFault(
                f"the answer continued after its finish reason {self._finish_reason!r}, and ended without "
                "another one"
            )
        calls = self._calls.built(
            self._whole_text, answered=bool(content) and not says_calls(self._finish_reason)
        )
        if not content and not calls and not self._kept.images:
            self._check_not_lost()
        elif self._unknown:
            self.remarks.append(f"parts of the answer that Kern does not support: {', '.join(self._unknown)}")
        word = text_of(self._finish_reason) or None
        finish = "refusal" if self._refused else finish_reason_of(word, calls=bool(calls))
        message = Message("assistant", parts=self._parts(content, reasoning, calls), usage=usage)
        head = self._head or {}
        answered_by, response_id = text_of(head.get("model")) or None, text_of(head.get("id")) or None
        return ModelResponse(message, usage, finish, word, response_id, answered_by)

    def _silent_end(self, usage: Usage) -> str | None:
        """Return "stop" for an answer that lacks a finish reason, but is whole, with usage and calls."""
        is_reported = self.done and usage.output_tokens and usage.input_tokens
        return "stop" if is_reported and self._finish_reason is None and self._calls.complete else None

    def _used(self) -> tuple[Usage, bool]:
        head = self._head or {}
        tier = (self._sources or head).get("service_tier")
        usage = usage_of(self._usage, self._server, text_of(head.get("model")) or self._model, tier)
        if self._kept.runs and usage.cost is None:
            usage.billed = {**(usage.billed or {}), "server_tools": len(self._kept.runs)}
        return usage, usage.output_tokens > 0 and self._finish_reason is not None

    def _has_begun(self) -> bool:
        return super()._has_begun() or self._calls.begun

    def _parts(self, content: str, reasoning: str, calls: list[ToolCall]) -> list[Part]:
        """Return the parts in the order in which models write them; the protocol has no order."""
        kept = self._kept.record
        if reasoning and self._reasoning_name:
            kept["reasoning"] = self._reasoning_name
        if self._sources is not None:
            self._kept.read_sources(self._sources)
        citations = self._kept.citations
        if self._halved:
            kept = mended_json(kept)
            citations = [Citation.from_dict(mended_json(cited.to_dict())) for cited in citations]
        parts: list[Part] = []
        if reasoning or kept:
            parts.append(ReasoningPart(reasoning, provider_data=kept or None, origin=self._origin))
        self._kept.end()
        parts += self._kept.runs
        if content or not calls:
            parts.append(TextPart(content, citations=citations, origin=self._origin))
            number_citations(parts)
            if self._cite is not None:
                for cited in citations:
                    self._cite(cited)
        for image in self._kept.images:
            image.origin = self._origin
            parts.append(image)
        if self._spoken is not None and (sound := self._spoken.built(self._origin)):
            parts.append(sound)
        return [*parts, *calls]

    def _check_not_lost(self) -> None:
        """Check that an answer without text and calls has no parts that could not be read."""
        if self._unknown:
            raise ModelBehaviorError(
                "the answer has no text and no call of a function, only parts of these types: "
                f"{', '.join(sorted(self._unknown))}, which Kern does not support"
            )
        if self._fields:
            raise ModelBehaviorError(
                "the answer has no text and no call of a function, only fields that Kern cannot read: "
                f"{', '.join(sorted(self._fields))}"
            )
        if says_calls(self._finish_reason):
            raise StreamFault(
                f"the answer ended with the finish reason {self._finish_reason!r}, but has no tool call"
            )
        if not self._message_read:
            raise StreamFault("the answer has no message")
