"""Encodes a conversation as Gemini's contents, which alternate between the user and the model.

Parts of this model are sent back unchanged, with their signatures and ids. Parts of other models, also of
Google's, are sent as texts and plain calls. Sources: https://ai.google.dev/api/caching#Content and
https://ai.google.dev/gemini-api/docs/thought-signatures
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import from_json

from kern.errors import UsageError
from kern.messages import Media, Message, Origin, ProviderCall, ReasoningPart, TextPart, ToolCall
from kern.models._history import answered, call_name, sound_arguments
from kern.models.google._media import media_part
from kern.models.google._parts import ANSWERED, CALLED, SIGNATURE
from kern.models.google.generation import wants_signatures
from kern.tools.result import mention

PROVIDER = "google"
_UNSIGNED = "skip_thought_signature_validator"
"""In place of a signature, for a call of another model; documented by Google."""

_MOST_EXACT = 2**53
_Part = dict[str, Any]


def contents_of(messages: Sequence[Message], model: str) -> list[dict[str, Any]]:
    """Encode the conversation.

    Raises:
        UsageError: A new message has content that Gemini does not support.
    """
    conversation = _Conversation(model)
    for message in answered(messages):
        conversation.add(message)
    return conversation.end()


class _Conversation:
    """Assembles the contents: adjacent messages of one role are joined, and results follow their calls."""

    def __init__(self, model: str) -> None:
        self._origin = Origin(PROVIDER, model)
        self._signed = wants_signatures(model)
        self._nested = wants_signatures(model)
        self._contents: list[dict[str, Any]] = []
        self._called: dict[str, ToolCall] = {}
        self._results: dict[str, _Part] = {}
        self._beside: list[_Part] = []

    def add(self, message: Message) -> None:
        """Add the next message."""
        if message.role == "tool" and message.tool_call_id in self._called:
            self._add_result(message, self._called[message.tool_call_id])
            return
        self._answer_calls()
        if message.role == "assistant":
            self._add_answer(message)
        else:  # a system message in the middle, too
            self._put("user", self._said(message) or [{"text": " "}])

    def end(self) -> list[dict[str, Any]]:
        """Return all contents."""
        self._answer_calls()
        if not self._contents or self._contents[0]["role"] == "model":
            opening = {"role": "user", "parts": [{"text": "(The conversation goes on.)"}]}
            self._contents.insert(0, opening)
        return self._contents

    def _put(self, role: str, parts: list[_Part]) -> None:
        if not parts:
            return
        if self._contents and self._contents[-1]["role"] == role:
            self._contents[-1]["parts"] += parts
        else:
            self._contents.append({"role": role, "parts": parts})

    def _said(self, message: Message) -> list[_Part]:
        """Return the parts of a message of the user or the application."""
        parts: list[_Part] = []
        for part in message.parts:
            if isinstance(part, TextPart) and part.text:
                parts.append({"text": part.text})
            elif isinstance(part, Media):
                parts.append(_shown(part, message))
        return parts

    def _add_answer(self, message: Message) -> None:
        own: list[_Part] = []
        attached: list[_Part] = []
        for part in message.parts:
            if isinstance(part, Media) and part.origin != self._origin:
                attached.append(_shown(part, message))
            else:
                own += self._spoken(part, message)
        calls = [part for part in message.parts if isinstance(part, ToolCall)]
        self._called = {call.id: call for call in calls}
        if self._signed:
            first = next((part for part in own if "functionCall" in part), None)
            if first is not None:
                first.setdefault(SIGNATURE, _UNSIGNED)
        self._put("model", own)
        if attached and not calls:
            self._put("user", [{"text": "(attached by the assistant)"}, *attached])
        else:
            self._beside = attached

    def _spoken(self, part: Any, message: Message) -> list[_Part]:
        """Return a part of an answer: of this model unchanged, of another one as text."""
        own = _kept(part) if part.origin == self._origin else {}
        signature = own.get(SIGNATURE)
        signed: _Part = {SIGNATURE: signature} if isinstance(signature, str) else {}
        match part:
            case TextPart(text=text):
                return [{"text": text, **signed}] if text or signed else []
            case ReasoningPart(text=text, signature=str() as seal) if part.origin == self._origin:
                return [{"text": text, "thought": True, SIGNATURE: seal}]
            case ToolCall():
                return [{"functionCall": {**self._named(part), "args": _arguments(part)}, **signed}]
            case ProviderCall():
                return [own[name] for name in (CALLED, ANSWERED) if isinstance(own.get(name), dict)]
            case Media():
                return [{**_shown(part, message), **signed}]
        return []

    def _named(self, call: ToolCall) -> _Part:
        """Return the name of a call, and its id if this model gave it one."""
        given = _kept(call).get("id") if call.origin == self._origin else None
        return {"name": call_name(call.name), **({"id": given} if isinstance(given, str) else {})}

    def _add_result(self, message: Message, call: ToolCall) -> None:
        text = "".join(part.text for part in message.parts if isinstance(part, TextPart))
        key = "error" if message.tool_call_error else "output"
        response: _Part = {**self._named(call), "response": {key: _value(text)}}
        media = [_shown(part, message) for part in message.parts if isinstance(part, Media)]
        if media and self._nested and all("inlineData" in part for part in media):
            response["parts"] = media
        else:
            self._beside += media
        self._results[call.id] = {"functionResponse": response}

    def _answer_calls(self) -> None:
        """Add the results of the calls so far, in the order of the calls."""
        if self._called:
            self._put("user", [self._results[call_id] for call_id in self._called])
        self._put("user", self._beside)
        self._called, self._results, self._beside = {}, {}, []


def _shown(media: Media, message: Message) -> _Part:
    """Return media as a part; for media of earlier or other answers that cannot be sent, a text instead."""
    try:
        return media_part(media)
    except UsageError:
        if message.role not in ("assistant", "tool") and not message.from_history:
            raise
        return {"text": mention(media)}


def _kept(part: Any) -> Mapping[str, Any]:
    data = part.provider_data
    return data if isinstance(data, Mapping) else {}


def _arguments(call: ToolCall) -> Any:
    return from_json(sound_arguments(call))


def _value(text: str) -> Any:
    """Return the result of a function: a JSON object as an object, anything else as text.

    Google reads a "$ref" in an object as the name of a file, and refuses the request. It stores numbers as
    doubles: an object with a number that would change is sent as text, too.
    """
    if text[:1] != "{" or '"$ref"' in text:
        return text
    try:
        return json.loads(text, parse_int=_exact_int, parse_float=_exact_float, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return text


def _exact_int(text: str) -> int:
    value = int(text)
    return value if abs(value) <= _MOST_EXACT else _no_number(text)


def _exact_float(text: str) -> float:
    value = float(text)
    return value if repr(value) == text else _no_number(text)


def _no_number(text: str) -> Any:
    raise ValueError(f"the number {text[:50]} cannot be represented exactly as a double")
