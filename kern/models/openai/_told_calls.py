"""What a sink is told of an answer's parts: the provider's own calls, and citations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from kern.messages import Message, Origin, ProviderCall, TextPart, number_citations
from kern.models.base import DeltaSink, citation_of, provider_call_of
from kern.models.openai._responses_parts import IMAGE_CALL, is_hosted, provider_call


class ToldCalls:
    """Tells of each of the provider's own calls once that it begins, and once that it has ended.

    Args:
        sink: Who is told; None: nobody.
        origin: Whose the calls are.
    """

    def __init__(self, sink: DeltaSink | None, origin: Origin) -> None:
        self._tell = provider_call_of(sink)
        self._cite = citation_of(sink)
        self._origin = origin
        self._begun: set[str] = set()
        self._ended: set[str] = set()

    def streamed(self, item: Mapping[str, Any], *, ended: bool) -> None:
        """An item has begun, or ended, in a stream."""
        if self._tell is not None and (is_hosted(item) or item.get("type") == IMAGE_CALL):
            call = provider_call(item, self._origin)
            if call.id:
                self._tell_of(call, ended=ended)

    def whole(self, message: Message) -> None:
        """The whole answer is here: what the stream has not told is told now."""
        number_citations(message.parts)
        for part in message.parts:
            if isinstance(part, ProviderCall):
                self._tell_of(part, ended=True)
            elif isinstance(part, TextPart) and self._cite is not None:
                for citation in part.citations:
                    self._cite(citation)

    def _tell_of(self, call: ProviderCall, *, ended: bool) -> None:
        if self._tell is None:
            return
        if call.id not in self._begun:
            self._begun.add(call.id)
            self._tell(replace(call, status="running", result=None, media=[]))
        if ended and call.id not in self._ended:
            self._ended.add(call.id)
            self._tell(call)
