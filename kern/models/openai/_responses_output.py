"""The output items of a response, as the ordered parts of a message."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from kern._json import json_bytes
from kern.errors import ModelBehaviorError
from kern.messages import Citation, Image, Message, Origin, Part, ReasoningPart, TextPart, ToolCall
from kern.models._reading import is_plain, items_of, text_in, text_of
from kern.models.openai._citations import citation
from kern.models.openai._media import decoded
from kern.models.openai._responses_parts import (
    COMPACTION,
    IMAGE_CALL,
    OF,
    is_hosted,
    provider_call,
    reasoning_part,
)

_LONGEST_KIND = 80
# The items of the provider's own tools that can be an answer by themselves.
_ANSWERS = (IMAGE_CALL,)


class Output:
    """Turns the output items of an answer into parts of a message.

    Args:
        items: The output items.
        origin: The model that made them.
        structured: JSON was requested: if there are several messages, only the last is the answer.

    Raises:
        ModelBehaviorError: All items are of unknown types, so there is no answer.
    """

    def __init__(self, items: list[dict[str, Any]], origin: Origin, *, structured: bool = False) -> None:
        self.refused = False
        self.remarks: list[str] = []
        """Remarks on the items, to be logged."""
        self._origin = origin
        self._parts: list[Part] = []
        self._ids: list[tuple[TextPart | ToolCall, str]] = []
        self._needs_ids = False
        """Whether the items are more than plain messages, so that the ids of texts and calls are kept."""
        self._unread: list[str] = []
        unknown: list[str] = []
        strange: set[str] = set()
        for item in _without_nothing(items):
            kind = kind_of(item)
            if kind == "message":
                self._message(item)
            elif kind == "function_call":
                self._call(item)
            elif kind in ("reasoning", COMPACTION):
                self._parts.append(reasoning_part(item, origin))
                self._needs_ids = True
                if kind == COMPACTION:
                    unknown.append(kind)
            else:
                if kind:  # what says nothing of its kind, nobody takes back
                    self._parts.append(provider_call(item, origin))
                    self._needs_ids = True
                if kind == IMAGE_CALL:
                    self._picture(item)
                else:
                    unknown.append(kind[:_LONGEST_KIND] or "(none)")
                    if not is_hosted(item):
                        strange.add(unknown[-1])
        self._arrange(structured)
        self._put_ids()
        self.message = Message("assistant", parts=self._parts)
        if self._unread and not self._says_something():
            raise ModelBehaviorError(
                "the answer has no text and no tool call, only parts of these types: "
                f"{', '.join(sorted(set(self._unread)))}, which Kern does not support"
            )
        if unknown:
            known = self._has(TextPart) or self._has(ToolCall)
            self._report(unknown, strange, known or any(kind_of(item) in _ANSWERS for item in items))

    def _report(self, unknown: list[str], strange: set[str], answered: bool) -> None:
        """Report the item types that Kern does not support."""
        if not answered:
            kinds = ", ".join(sorted(set(unknown)))
            raise ModelBehaviorError(
                f"the answer has no text and no tool call, only output items of these types: {kinds}; "
                "Kern does not support them: do not offer the hosted tool that they belong to, or let it act "
                "without approval"
            )
        if strange:
            self.remarks.append(
                "output items that Kern does not support are kept beside the answer: "
                f"{', '.join(sorted(strange))}"
            )

    def _has(self, kind: type[Part]) -> bool:
        return any(isinstance(part, kind) for part in self._parts)

    def _says_something(self) -> bool:
        said = any(isinstance(part, TextPart) and part.text for part in self._parts)
        return said or self._has(ToolCall) or self._has(Image)

    def _picture(self, item: dict[str, Any]) -> None:
        content = decoded(text_of(item.get("result")))
        if content is not None:
            kind = text_of(item.get("output_format")) or "png"
            self._parts.append(Image(content=content, mime_type=f"image/{kind}", origin=self._origin))

    def _message(self, item: dict[str, Any]) -> None:
        data: dict[str, Any] = {}
        if phase := text_of(item.get("phase")):
            data["phase"] = phase
            self._needs_ids = True
        content = item.get("content")
        if content is not None and is_plain(content):
            content = json_bytes(content).decode()  # the answer itself, if JSON was requested
        text, citations = "", list[Citation]()
        for piece in content if isinstance(content, list) else [content]:
            if isinstance(piece, str):
                text += piece
            elif isinstance(piece, dict):
                said = text_in(piece.get("text")) or text_of(piece.get("refusal"))
                for annotation in items_of(piece.get("annotations")):
                    if (cited := citation(annotation, len(text))) is not None:
                        citations.append(cited)
                text += said
                if piece.get("type") == "refusal":
                    self.refused = data["refusal"] = True
                elif not said and (kind := text_of(piece.get("type"))) not in ("", "text", "output_text"):
                    self._unread.append(kind[:_LONGEST_KIND])
        part = TextPart(text, citations=citations, provider_data=data or None, origin=self._origin)
        self._parts.append(part)
        self._ids.append((part, text_of(item.get("id"))))

    def _arrange(self, structured: bool) -> None:
        """Separate answer and commentary. The messages of each kind are paragraphs of one text."""
        texts = [part for part in self._parts if isinstance(part, TextPart)]
        self._needs_ids = self._needs_ids or len(texts) > 1
        said = [part for part in texts if (part.provider_data or {}).get("phase") != "commentary"]
        if not said and not self._has(ToolCall):  # nothing else follows: the commentary is the answer
            said = texts
        if structured:
            said = [part for part in said if part.text][-1:]
        answers = {id(part) for part in said}
        begun: set[bool] = set()
        for part in texts:
            part.commentary = id(part) not in answers
            part.paragraph = part.commentary in begun
            begun.add(part.commentary)

    def _call(self, item: dict[str, Any]) -> None:
        namespace = text_of(item.get("namespace"))
        call = ToolCall(
            text_of(item.get("call_id")) or text_of(item.get("id")) or f"call_{uuid4().hex}",
            text_of(item.get("name")),
            arguments_text(item.get("arguments")),
            {"namespace": namespace} if namespace else None,
            origin=self._origin,
        )
        self._parts.append(call)
        self._ids.append((call, text_of(item.get("id"))))

    def _put_ids(self) -> None:
        """Keep what is needed to send the items back with their ids, if all of them are there."""
        for reasoning in self._parts:
            if isinstance(reasoning, ReasoningPart):
                reasoning.provider_data = {OF: len(self._parts), **(reasoning.provider_data or {})}
        for part, identity in self._ids if self._needs_ids else ():
            if identity:
                part.provider_data = {"id": identity, **(part.provider_data or {})}


def kind_of(item: dict[str, Any]) -> str:
    """Return the type of an item. Some servers leave out the type of a message."""
    return text_of(item.get("type")) or ("message" if item.get("role") == "assistant" else "")


def _without_nothing(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Remove calls without name and arguments, and repeated calls."""
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
    """Return the arguments of a call as JSON. For tools without parameters, servers also send null or ""."""
    text = value if isinstance(value, str) else "" if value is None else json_bytes(value).decode()
    return "{}" if text.strip() in ("", "null") else text
