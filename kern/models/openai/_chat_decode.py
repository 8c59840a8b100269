"""The answer of `POST /chat/completions`, streamed or whole, as a `ModelResponse`: no I/O.

The chunks: https://platform.openai.com/docs/api-reference/chat-streaming, read with the liberties that
Ollama, vLLM, llama.cpp, LM Studio, DeepSeek, Mistral, OpenRouter and others take.
"""

from __future__ import annotations

from typing import Any

from kern.errors import ModelBehaviorError
from kern.models._codes import explain, tells
from kern.models._ends import Ends, is_refusal, says_calls
from kern.models._failures import StreamFault
from kern.models.base import DeltaSink, ModelResponse
from kern.models.openai._chat_calls import Calls
from kern.models.openai._chat_encode import PROVIDER, REASONING_NAMES
from kern.models.openai._kept import Kept
from kern.models.openai._reading import AnswerReader, answer, count, items_of, logger, text_of
from kern.models.openai._strand import mended_json
from kern.usage import Usage

_THINKING = ("thinking", "reasoning")
_LONGEST_KIND = 80


class ChatReader(AnswerReader):
    """Reads one answer of the Chat Completions API."""

    def __init__(self, model: str, sink: DeltaSink | None, *, streamed: bool, ends: Ends) -> None:
        super().__init__(model, sink, streamed=streamed)
        self._ends = ends
        self._calls = Calls(model)
        self._unknown: set[str] = set()
        self._reasoning_name: str | None = None
        self._refused = False
        self._kept = Kept(streamed=streamed)
        self._finish_reason: Any = None
        self._native_reason: Any = None
        self._usage: Any = None

    def _read_event(self, name: bytes, data: bytes) -> None:
        if data == b"[DONE]":
            self.done = True
            return
        chunk = self._parse(data)
        error = chunk.get("error")
        if (error and tells(error)) or name == b"error" or chunk.get("object") == "error":
            raise StreamFault(*explain(chunk))
        for choice in items_of(chunk.get("choices")):
            if choice.get("index"):  # a second answer, which nobody asked for
                continue
            delta = choice.get("delta")
            if isinstance(delta, dict):
                self._read_choice(choice, delta, whole=False)
            else:  # the whole answer in one event, from a server that does not stream
                self._read_choice(choice, choice.get("message"), whole=True)
        if usage := chunk.get("usage") or chunk.get("x_groq"):
            self._usage = usage.get("usage", usage) if isinstance(usage, dict) else usage

    def _read_whole(self, answer: dict[str, Any]) -> None:
        if tells(answer.get("error")) or answer.get("object") == "error":
            raise StreamFault(*explain(answer))
        choices = items_of(answer.get("choices"))
        if not choices:
            text, code, status = explain(answer)
            detail = f": {text}" if text else ""
            raise StreamFault(f"the answer is no chat completion: it has no choices{detail}", code, status)
        self._usage = answer.get("usage")
        self._read_choice(choices[0], choices[0].get("message"), whole=True)
        self.done = True

    def _read_choice(self, choice: dict[str, Any], said: Any, *, whole: bool) -> None:
        error = choice.get("error")
        if error and tells(error):
            raise StreamFault(*explain(choice))
        if isinstance(said, dict):
            content = said.get("content")
            if isinstance(content, str):
                self._content.add(content)
            elif content:
                self._read_parts(content)
            if not content or len(said) > 1:  # the usual delta is text alone
                self._read_rest(said, whole=whole)
        if usage := choice.get("usage"):
            self._usage = usage
        if reason := choice.get("finish_reason"):
            self._finish_reason = reason
        if reason := choice.get("native_finish_reason"):
            self._native_reason = reason

    def _read_parts(self, content: Any) -> None:
        """Content that is no text but typed parts, one of them or a list."""
        for part in content if isinstance(content, list) else [content]:
            if isinstance(part, str):
                self._content.add(part)
                continue
            if not isinstance(part, dict):
                continue
            kind = text_of(part.get("type"))
            if kind in _THINKING:
                self._reasoning.add(_text_in(part.get(kind) or part.get("text") or part.get("content")))
            elif kind == "refusal":
                self._refuse(text_of(part.get("refusal")))
            elif text := _text_in(part.get("text")):
                self._content.add(text)
            elif kind not in ("", "text", "output_text", "reference"):
                self._unknown.add(kind[:_LONGEST_KIND])

    def _read_rest(self, said: dict[str, Any], *, whole: bool) -> None:
        for name in REASONING_NAMES:
            if text := _text_in(said.get(name)):
                self._reasoning_name = name
                self._reasoning.add(text)
                break
        self._kept.read(said)
        if refusal := text_of(said.get("refusal")):
            self._refuse(refusal)
        audio = said.get("audio")
        if isinstance(audio, dict):
            self._content.add(text_of(audio.get("transcript")))
        calls = items_of(said.get("tool_calls"))
        legacy = said.get("function_call")
        if isinstance(legacy, dict) and not calls:
            calls = [{"index": 0, "function": legacy}]
        known = [call for call in calls if _is_function(call)]
        self._unknown.update(
            text_of(call.get("type"))[:_LONGEST_KIND] or "custom" for call in calls if not _is_function(call)
        )
        if known:
            (self._calls.add_whole if whole else self._calls.add)(known)

    def _refuse(self, text: str) -> None:
        self._refused = True
        self._content.add(text)

    def _respond(self) -> ModelResponse:
        content, reasoning = self._content.whole(), self._reasoning.whole()
        usage = _usage(self._usage)
        self._ends.check(self._finish_reason, self._native_reason, content, usage)
        calls = self._calls.built(self._whole_text)
        if not content and not calls and not self._kept.images:
            self._check_not_lost()
        elif self._unknown:
            logger.warning("parts of an answer that Kern does not act on: %s", ", ".join(self._unknown))
        refused = self._refused or is_refusal(self._finish_reason)
        response = answer(content, reasoning, calls, usage, "refusal" if refused else self._finish_reason)
        kept = self._kept.record
        if reasoning and calls and self._reasoning_name:
            kept["reasoning"] = self._reasoning_name
        if self._halved:
            kept = mended_json(kept)
        if kept:
            response.message.provider_data = {PROVIDER: {"model": self._model, **kept}}
        response.message.images = self._kept.images
        return response

    def _check_not_lost(self) -> None:
        """An empty answer is one only if nothing was there that could not be read."""
        if self._unknown:
            raise ModelBehaviorError(
                "the answer has no text and no call of a function, only parts of these types: "
                f"{', '.join(sorted(self._unknown))}; Kern does not act on them"
            )
        if says_calls(self._finish_reason):
            raise StreamFault(
                f"the answer ended with the finish reason {self._finish_reason!r}, but holds no tool call"
            )


def _is_function(call: dict[str, Any]) -> bool:
    """Whether a call, or a delta of one, is that of a function, and not of a tool that takes text, say."""
    return "function" in call or (call.get("type") in ("function", "", None) and "custom" not in call)


def _text_in(value: Any) -> str:
    """The text of a part, which may be wrapped in parts, or in an object, itself."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return text_of(value.get("text") or value.get("value"))
    if isinstance(value, list):
        return "".join(item if isinstance(item, str) else _text_in(item) for item in value)
    return ""


def _usage(usage: Any) -> Usage:
    spent, said = count(usage, "prompt_tokens"), count(usage, "completion_tokens")
    details = usage if isinstance(usage, dict) else {}
    cached = count(details.get("prompt_tokens_details"), "cached_tokens")
    return Usage(
        input_tokens=spent,
        output_tokens=said,
        total_tokens=max(count(usage, "total_tokens"), spent + said),
        cached_tokens=cached or count(usage, "cached_tokens") or count(usage, "num_cached_tokens"),
        reasoning_tokens=count(details.get("completion_tokens_details"), "reasoning_tokens"),
        requests=1,
    )
