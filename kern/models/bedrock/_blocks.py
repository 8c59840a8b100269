"""Assembles the content blocks of an answer from their deltas, and converts them to parts of a message."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from pydantic_core import from_json

from kern._json import json_bytes
from kern.messages import Citation, Image, Origin, Part, ProviderCall, ReasoningPart, TextPart, ToolCall
from kern.models._reading import items_of, text_of
from kern.models._text_stream import mended, mended_json

FLOWING = ("text", "citationsContent")
"""Blocks whose text continues the text of the block before, without a new paragraph."""

_CARRIED_OUT = "server_tool_use"
_LOCATIONS = ("documentChar", "documentPage", "documentChunk")
_LONGEST_KIND = 80


@dataclass(slots=True)
class Block:
    """One content block.

    Args:
        kind: The name of its only field: "text", "reasoningContent", "toolUse" ...
        data: The fields that arrived with the start of the block.
    """

    kind: str
    data: dict[str, Any] = field(default_factory=dict)
    pieces: list[str] = field(default_factory=list)
    """Text, reasoning, or the arguments of a call."""
    signature: list[str] = field(default_factory=list)
    redacted: list[str] = field(default_factory=list)
    citations: list[dict[str, Any]] = field(default_factory=list)
    results: list[Any] = field(default_factory=list)
    """What a tool that Bedrock ran returned."""
    paragraph: bool = False

    @property
    def id(self) -> str:
        """The id of the call that the block contains, or whose result it contains."""
        return text_of(self.data.get("toolUseId"))

    @property
    def is_carried_out(self) -> bool:
        """Whether the block is a call that Bedrock carries out itself."""
        return self.kind == "toolUse" and self.data.get("type") == _CARRIED_OUT

    @property
    def text(self) -> str:
        """The text so far."""
        return mended("".join(self.pieces))

    def arguments(self) -> str:
        """The arguments as the model wrote them. A block without deltas has them as a value."""
        if self.pieces:
            return self.text
        given = self.data.get("input")
        if isinstance(given, str):  # text that is not JSON
            return mended(given) or "{}"
        return "{}" if given in (None, "", {}) else json_bytes(mended_json(given)).decode()


class Parts:
    """Converts the blocks of an answer to parts.

    Args:
        origin: The provider and the model.
    """

    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self.unknown: set[str] = set()
        """The kinds of blocks that Kern does not support."""

    def made(self, blocks: Sequence[Block]) -> list[Part]:
        """The blocks as parts. A block of citations without text belongs to the text before it, or if there
        is none, to the first text.
        """
        results = {block.id: block for block in blocks if block.kind == "toolResult"}
        parts: list[Part] = []
        last: TextPart | None = None
        early: list[dict[str, Any]] = []
        for block in blocks:
            match block.kind:
                case "text" | "citationsContent":
                    if block.pieces:
                        last = TextPart(block.text, paragraph=block.paragraph, origin=self._origin)
                        parts.append(last)
                    early += block.citations
                    if last is not None:
                        last.citations += [_citation(given, len(last.text)) for given in early]
                        early = []
                case "reasoningContent":
                    parts += self._reasoning(block)
                case "toolUse":
                    if block.is_carried_out:
                        parts.append(self.carried_out(block, results.get(block.id)))
                    else:
                        parts.append(self._call(block))
                case "image":
                    parts += self._image(block)
                case "toolResult":
                    pass
                case kind:
                    self.unknown.add(kind[:_LONGEST_KIND])
        return parts

    def carried_out(self, block: Block, result: Block | None) -> ProviderCall:
        """A call that Bedrock carries out, with its result if that has arrived."""
        name, arguments = text_of(block.data.get("name")), block.arguments()
        call = ProviderCall(block.id, name, arguments, status="running", origin=self._origin)
        if result is not None:
            content = mended_json(result.results)
            call.result = content
            call.status = "failed" if result.data.get("status") == "error" else "completed"
            call.provider_data = {
                "call": {**mended_json(block.data), "input": _value(arguments)},
                "result": {**mended_json(result.data), "content": content},
            }
        return call

    def _call(self, block: Block) -> ToolCall:
        name = text_of(block.data.get("name"))
        return ToolCall(block.id or f"call_{uuid4().hex}", name, block.arguments(), origin=self._origin)

    def _reasoning(self, block: Block) -> list[Part]:
        parts: list[Part] = []
        signature = mended("".join(block.signature)) or None
        if block.pieces or signature:
            parts.append(ReasoningPart(block.text, signature=signature, origin=self._origin))
        if block.redacted:
            parts.append(ReasoningPart(redacted=_joined(block.redacted), origin=self._origin))
        return parts

    def _image(self, block: Block) -> list[Part]:
        try:
            content = base64.b64decode(_joined(block.pieces), validate=True)
        except (binascii.Error, ValueError):
            content = b""
        if not content:
            self.unknown.add("image without bytes")
            return []
        form = text_of(block.data.get("format")) or "png"
        return [Image(content=content, mime_type=f"image/{form}", origin=self._origin)]


def citations_of(blocks: Sequence[Block], text: Block, number: int) -> list[Citation]:
    """The citations of blocks that belong to a text, which is the text number `number` of the message."""
    length = len(text.text)
    cited = [_citation(given, length) for block in blocks for given in block.citations]
    for citation in cited:
        citation.part = number
    return cited


def _citation(given: dict[str, Any], length: int) -> Citation:
    location = given.get("location")
    location = location if isinstance(location, dict) else {}
    web = location.get("web")
    places = [place for name in _LOCATIONS if isinstance(place := location.get(name), dict)]
    document = places[0].get("documentIndex") if places else None
    words = "".join(text_of(piece.get("text")) for piece in items_of(given.get("sourceContent")))
    source = text_of(given.get("source"))
    return Citation(
        url=(text_of(web.get("url")) if isinstance(web, dict) else source) or None,
        title=text_of(given.get("title")) or None,
        text=words or None,
        start=0,
        end=length,
        document=document if type(document) is int and document >= 0 else None,
        provider_data=mended_json(given),
    )


def _joined(pieces: Sequence[str]) -> str:
    """Join bytes in base64 that came in pieces, each with its own padding."""
    if len(pieces) == 1:
        return pieces[0]
    try:
        whole = b"".join(base64.b64decode(piece, validate=True) for piece in pieces)
    except (binascii.Error, ValueError):
        return "".join(pieces)
    return base64.b64encode(whole).decode("ascii")


def _value(arguments: str) -> Any:
    try:
        return from_json(arguments)
    except ValueError:
        return {}
