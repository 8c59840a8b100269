"""The output items of a response, as a message."""

from __future__ import annotations

import logging
from typing import Any
from uuid import uuid4

from kern._json import json_bytes
from kern.errors import ModelBehaviorError
from kern.messages import Image, Message, ToolCall
from kern.models._reading import is_plain, items_of, logger, text_in, text_of
from kern.models.openai._kept import decoded
from kern.models.openai._replay import HOSTED, IMAGE_CALL, PROVIDER, is_whole

_LONGEST_KIND = 80
_BREAK = "\n\n"
# Of the provider's own tools, what can be an answer by itself.
_ANSWERS = (IMAGE_CALL,)


class Output:
    """What an answer's output items come to.

    `record` is what it takes to send the items again: reasoning whole, of texts, calls and pictures only
    their places (of a text, `of` says in which field of the message it stands, `start` and `chars` where).
    It is worth keeping (`notable`) if plain messages could not say the same.

    Args:
        items: The output items.
        structured: JSON was asked for: of several messages only the last is the answer.

    Raises:
        ModelBehaviorError: None of them is known, so that there is no answer.
    """

    def __init__(self, items: list[dict[str, Any]], *, structured: bool = False) -> None:
        self.reasoning: list[str] = []
        self.calls: list[ToolCall] = []
        self.images: list[Image] = []
        self.record: list[dict[str, Any]] = []
        self.refused = False
        self.notable = False
        self._namespaces: list[str] = []
        self._messages: list[tuple[dict[str, Any], str]] = []
        self._unread: list[str] = []
        unknown: list[str] = []
        for item in _without_nothing(items):
            kind = kind_of(item)
            if kind == "message":
                self._message(item)
            elif kind == "function_call":
                self._call(item)
            elif kind == "reasoning":
                self._reason(item)
            else:
                if kind:  # what says nothing of its kind, nobody takes back
                    self.record.append(self._picture(item) if kind == IMAGE_CALL else item)
                    self.notable = True
                if kind not in _ANSWERS:
                    unknown.append(kind[:_LONGEST_KIND] or "(none)")
        self.content, self.commentary = self._arrange(structured)
        if self._unread and not (self.content or self.commentary or self.calls or self.images):
            raise ModelBehaviorError(
                "the answer has no text and no tool call, only parts of these types: "
                f"{', '.join(sorted(set(self._unread)))}; Kern does not act on them"
            )
        if unknown:
            known = bool(self._messages or self.calls or any(kind_of(item) in _ANSWERS for item in items))
            _report(unknown, known)

    def put_record(self, message: Message, model: str) -> None:
        """Put into the message what its model needs to see again."""
        if self.notable:
            record = {"model": model, "items": self.record, "whole": is_whole(self.record)}
            message.provider_data = {PROVIDER: record}
        for call, namespace in zip(message.tool_calls, self._namespaces, strict=True):
            if namespace:
                call.provider_data = {PROVIDER: {"model": model, "namespace": namespace}}

    def _picture(self, item: dict[str, Any]) -> dict[str, Any]:
        """Take the picture out of the item that holds it; returns the item without it."""
        content = decoded(text_of(item.get("result")))
        if content is not None:
            kind = text_of(item.get("output_format")) or "png"
            self.images.append(Image(content=content, mime_type=f"image/{kind}"))
        return {name: value for name, value in item.items() if name != "result"}

    def _message(self, item: dict[str, Any]) -> None:
        place: dict[str, Any] = {"type": "message"}
        place |= {name: text for name in ("id", "phase") if (text := text_of(item.get(name)))}
        texts = []
        content = item.get("content")
        if content is not None and is_plain(content):
            content = json_bytes(content).decode()  # the answer itself, where JSON was asked for
        for part in content if isinstance(content, list) else [content]:
            if isinstance(part, str):
                texts.append(part)
            elif isinstance(part, dict):
                texts.append(text := text_in(part.get("text")) or text_of(part.get("refusal")))
                if part.get("type") == "refusal":
                    self.refused = place["refusal"] = True
                elif not text and (kind := text_of(part.get("type"))) not in ("", "text", "output_text"):
                    self._unread.append(kind[:_LONGEST_KIND])
        self._messages.append((place, "".join(texts)))
        self.record.append(place)
        self.notable = self.notable or "phase" in place

    def _arrange(self, structured: bool) -> tuple[str, str]:
        """The answer and the commentary: the messages of each kind are paragraphs of one text."""
        self.notable = self.notable or len(self._messages) > 1
        said = [i for i, (place, _) in enumerate(self._messages) if place.get("phase") != "commentary"]
        if not said and not self.calls:  # nothing else follows: this is all that is answered
            said = list(range(len(self._messages)))
        if structured:
            said = [i for i in said if self._messages[i][1]][-1:]
        answers = set(said)
        texts: dict[str, list[str]] = {"content": [], "commentary": []}
        ends = {"content": 0, "commentary": 0}
        for index, (place, text) in enumerate(self._messages):
            kind = "content" if index in answers else "commentary"
            gap = len(_BREAK) if text and ends[kind] else 0
            place |= {"of": kind, "start": ends[kind] + gap, "chars": len(text)}
            ends[kind] += gap + len(text)
            if text:
                texts[kind].append(text)
        return _BREAK.join(texts["content"]), _BREAK.join(texts["commentary"])

    def _call(self, item: dict[str, Any]) -> None:
        call = ToolCall(
            text_of(item.get("call_id")) or text_of(item.get("id")) or f"call_{uuid4().hex}",
            text_of(item.get("name")),
            arguments_text(item.get("arguments")),
        )
        self.calls.append(call)
        self._namespaces.append(text_of(item.get("namespace")))
        place = {"type": "function_call", "call_id": call.id}
        if identity := text_of(item.get("id")):
            place["id"] = identity
        self.record.append(place)

    def _reason(self, item: dict[str, Any]) -> None:
        parts = items_of(item.get("content")) or items_of(item.get("summary"))
        self.reasoning.extend(text for part in parts if (text := text_of(part.get("text"))))
        self.record.append({name: value for name, value in item.items() if value or name == "summary"})
        self.notable = True


def kind_of(item: dict[str, Any]) -> str:
    """The type of an item; some servers leave that of a message out."""
    return text_of(item.get("type")) or ("message" if item.get("role") == "assistant" else "")


def _without_nothing(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The items without calls that name no tool and pass nothing to one, or are told twice."""
    answered = any(kind_of(item) == "message" and item.get("content") for item in items)

    def is_nothing(item: dict[str, Any]) -> bool:
        if kind_of(item) != "function_call" or item.get("name"):
            return False
        bare = not (item.get("arguments") or item.get("call_id") or item.get("id"))
        return bare or (answered and arguments_text(item.get("arguments")) == "{}")

    kept: list[dict[str, Any]] = []
    for item in items:
        named = item.get("id") and (kind_of(item) != "function_call" or item.get("call_id"))
        if not is_nothing(item) and not (named and item in kept):
            kept.append(item)
    return kept


def arguments_text(value: Any) -> str:
    """A call's arguments as JSON text; for a tool without parameters servers also write null, or nothing."""
    text = value if isinstance(value, str) else "" if value is None else json_bytes(value).decode()
    return "{}" if text.strip() in ("", "null") else text


def _report(unknown: list[str], answered: bool) -> None:
    kinds = ", ".join(sorted(set(unknown)))
    if not answered:
        raise ModelBehaviorError(
            f"the answer has no text and no tool call, only output items of these types: {kinds}; "
            "Kern does not act on them: do not offer the hosted tool that they belong to, or let it act "
            "without approval"
        )
    level = logging.INFO if HOSTED.issuperset(unknown) else logging.WARNING
    logger.log(level, "output items that Kern does not act on are kept beside the answer: %s", kinds)
