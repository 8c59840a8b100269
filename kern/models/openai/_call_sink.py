"""Puts the provider's own calls, and the citations of an answer, into the sink."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from kern.messages import Message, Origin, ProviderCall, TextPart, number_citations
from kern.models.base import DeltaSink, citation_of, provider_call_of
from kern.models.openai._responses_parts import IMAGE_CALL, is_hosted, provider_call


class CallSink:
    """Puts each of the provider's own calls into the sink twice: when it begins, and when it has ended.

    Args:
        sink: Receives the calls and the citations; None if nobody listens.
        origin: The provider and the model.
    """

    def __init__(self, sink: DeltaSink | None, origin: Origin) -> None:
        self._put_call = provider_call_of(sink)
        self._put_citation = citation_of(sink)
        self._origin = origin
        self._begun: set[str] = set()
        self._ended: set[str] = set()

    def streamed(self, item: Mapping[str, Any], *, ended: bool) -> None:
        """Put the call of a streamed item that has begun, or ended."""
        if self._put_call is not None and (is_hosted(item) or item.get("type") == IMAGE_CALL):
            call = provider_call(item, self._origin)
            if call.id:
                self._put(call, ended=ended)

    def whole(self, message: Message) -> None:
        """Put what the stream has not delivered, when the answer is complete."""
        number_citations(message.parts)
        for part in message.parts:
            if isinstance(part, ProviderCall):
                self._put(part, ended=True)
            elif isinstance(part, TextPart) and self._put_citation is not None:
                for citation in part.citations:
                    self._put_citation(citation)

    def _put(self, call: ProviderCall, *, ended: bool) -> None:
        if self._put_call is None:
            return
        if call.id not in self._begun:
            self._begun.add(call.id)
            self._put_call(replace(call, status="running", result=None, media=[]))
        if ended and call.id not in self._ended:
            self._ended.add(call.id)
            self._put_call(call)
