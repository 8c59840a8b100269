"""The common part of the decoders of answers that consist of content blocks: Claude's and Bedrock's."""

from __future__ import annotations

from typing import Protocol

from kern.messages import Citation, Part, ProviderCall, TextPart
from kern.models._reading import AnswerReader
from kern.models.base import DeltaSink, ModelResponse, citation_of, provider_call_of, tool_arguments_of


class TextBlock(Protocol):
    """A block with a text, in the pieces that it arrives in."""

    pieces: list[str]
    paragraph: bool


class BlockReader(AnswerReader):
    """Puts the deltas of blocks into the sink, and joins their texts to paragraphs.

    Args:
        model: The id of the model that was asked.
        sink: Receives the deltas; None if nobody listens.
        streamed: Whether the answer is an event stream.
    """

    def __init__(self, model: str, sink: DeltaSink | None, *, streamed: bool) -> None:
        super().__init__(model, sink, streamed=streamed)
        self._gap = False
        self._spoke = False
        self._has_put = False
        shown = sink if streamed else None
        self._put_arguments = tool_arguments_of(shown)
        self._put_call = provider_call_of(shown)
        self._put_citation = citation_of(shown)

    @property
    def shown(self) -> bool:
        """Whether a delta was put into the sink."""
        return self._has_put or super().shown

    def finish(self) -> ModelResponse:
        """Return the answer after the last byte."""
        response = super().finish()
        if self._sink is not None and self._events is None:  # a server that does not stream
            self._put_call = provider_call_of(self._sink)
            self._put_citation = citation_of(self._sink)
            for part in response.message.parts:
                self._put(part)
        return response

    def _interrupt(self) -> None:
        """Note that a block other than a text begins: the next text is a paragraph of its own."""
        self._content.end()
        self._gap = True

    def _say(self, block: TextBlock, text: str) -> None:
        """Add a piece of a block's text."""
        if not text:
            return
        if self._gap:
            self._gap = False
            self._content.part()
            block.paragraph = self._spoke
        self._spoke = True
        block.pieces.append(text)
        self._content.add(text)

    def _add_input(self, block: TextBlock, text: str, call_id: str, name: str, *, is_own: bool) -> None:
        """Add a piece of a call's arguments; `is_own`: the call is one of the application's tools."""
        if not text:
            return
        block.pieces.append(text)
        if self._put_arguments is not None and is_own:
            self._has_put = True
            self._put_arguments(call_id, name, text)

    def _put(self, part: Part) -> None:
        """Put a part that is neither text nor reasoning into the sink."""
        if isinstance(part, ProviderCall) and self._put_call is not None:
            self._has_put = True
            self._put_call(part)
        elif isinstance(part, TextPart):
            self._cite(part.citations)

    def _cite(self, citations: list[Citation]) -> None:
        for citation in citations if self._put_citation is not None else ():
            self._has_put = True
            if self._put_citation is not None:
                self._put_citation(citation)
