"""Converts the sources that Google reports beside an answer to citations and calls.

Source: `GroundingMetadata`, `CitationMetadata`, `UrlContextMetadata` on https://ai.google.dev/api/generate-content.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from pydantic_core import to_json

from kern.messages import Citation, ProviderCall, TextPart
from kern.models._reading import items_of, text_of
from kern.models.google._parts import AnswerParts

_READ = frozenset({"uri", "sourceUri", "title", "text"})
_SOURCES = ("web", "retrievedContext", "maps", "image")
_TERMS = ("license", "publicationDate")
"""What Google tells of a work that the text recites, beside its address and title."""
_PER_ANSWER = re.compile(r"gemini-[12]\b")
_FETCHED = "URL_RETRIEVAL_STATUS_SUCCESS"


class Grounding:
    """The metadata of one answer, which may come in several events."""

    def __init__(self) -> None:
        self._metadata: dict[str, Any] = {}
        self._cited: list[dict[str, Any]] = []
        self._fetched: list[dict[str, Any]] = []

    def read(self, candidate: dict[str, Any]) -> None:
        """Read the metadata of a candidate."""
        metadata = candidate.get("groundingMetadata")
        if isinstance(metadata, dict):
            self._metadata |= {name: value for name, value in metadata.items() if value}
        cited = candidate.get("citationMetadata")
        if isinstance(cited, dict):
            self._cited += items_of(cited.get("citationSources") or cited.get("citations"))
        fetched = candidate.get("urlContextMetadata")
        if isinstance(fetched, dict):
            self._fetched = items_of(fetched.get("urlMetadata")) or self._fetched

    def searches(self, model: str) -> int:
        """How many searches are billed: Gemini 3 and later bill each query, others each answer.

        Source: https://ai.google.dev/gemini-api/docs/pricing
        """
        asked = len(self._queries)
        return min(asked, 1) if _PER_ANSWER.search(model) else asked

    @property
    def _queries(self) -> list[str]:
        """The search queries."""
        queries = self._metadata.get("webSearchQueries")
        return [text for query in queries if (text := text_of(query))] if isinstance(queries, list) else []

    def into(self, answer: AnswerParts, on_citation: Callable[[Citation], None] | None) -> None:
        """Add the citations to the texts of an answer, and the calls before them.

        Args:
            answer: The complete answer.
            on_citation: Receives each citation; None if nobody listens.
        """
        names = {part.name for part in answer.parts if isinstance(part, ProviderCall)}
        if self._fetched and "url_context" not in names:
            answer.put_call(self._fetch(answer.new_id()))
        if (queries := self._queries) and not any(name.startswith("google_search") for name in names):
            answer.put_call(self._search(queries, answer.new_id()))
        if not (texts := answer.texts):
            return
        for part, citation in [*self._supported(texts), *_attributed(self._cited, texts)]:
            citation.part = next(number for number, text in enumerate(texts) if text is part)
            part.citations.append(citation)
            if on_citation is not None:
                on_citation(citation)

    def _fetch(self, call_id: str) -> ProviderCall:
        pages = [
            {"url": text_of(page.get("retrievedUrl")), "status": text_of(page.get("urlRetrievalStatus"))}
            for page in self._fetched
        ]
        arguments = to_json({"urls": [page["url"] for page in pages]}).decode()
        call = ProviderCall(call_id, "url_context", arguments, result={"pages": pages})
        if not any(page["status"] == _FETCHED for page in pages):
            call.status = "failed"
        return call

    def _search(self, queries: Any, call_id: str) -> ProviderCall:
        """The search. `provider_data` has what Google requires to be shown with the results."""
        arguments = to_json({"queries": queries}).decode()
        sources = [_source(chunk).to_dict() for chunk in items_of(self._metadata.get("groundingChunks"))]
        entry = self._metadata.get("searchEntryPoint")
        return ProviderCall(
            call_id,
            "google_search",
            arguments,
            result={"sources": sources},
            provider_data={"searchEntryPoint": entry} if isinstance(entry, dict) else None,
        )

    def _supported(self, texts: list[TextPart]) -> Iterable[tuple[TextPart, Citation]]:
        sources = [_source(chunk) for chunk in items_of(self._metadata.get("groundingChunks"))]
        for support in items_of(self._metadata.get("groundingSupports")):
            segment = support.get("segment")
            part, start, end = _place(segment if isinstance(segment, dict) else {}, texts)
            indices = support.get("groundingChunkIndices")
            for index in indices if isinstance(indices, list) else ():
                if isinstance(index, int) and 0 <= index < len(sources):
                    yield part, replace(sources[index], start=start, end=end)


def _source(chunk: dict[str, Any]) -> Citation:
    found: dict[str, Any] = next((chunk[name] for name in _SOURCES if isinstance(chunk.get(name), dict)), {})
    rest = {name: value for name, value in found.items() if name not in _READ}
    return Citation(
        url=text_of(found.get("uri") or found.get("sourceUri")) or None,
        title=text_of(found.get("title")) or None,
        text=text_of(found.get("text")) or None,
        provider_data=rest if rest and found is chunk.get("retrievedContext") else None,
    )


def _attributed(cited: list[dict[str, Any]], texts: list[TextPart]) -> Iterable[tuple[TextPart, Citation]]:
    for source in cited:
        part, start, end = _place(source, texts)
        url, title = text_of(source.get("uri")) or None, text_of(source.get("title")) or None
        rest = {name: source[name] for name in _TERMS if source.get(name)}
        yield part, Citation(url=url, title=title, start=start, end=end, provider_data=rest or None)


def _place(segment: dict[str, Any], texts: list[TextPart]) -> tuple[TextPart, int | None, int | None]:
    """The part that contains a segment, and its place in characters: Google counts bytes of UTF-8.

    In a stream the parts differ from those that Google counts in; there the text of the segment is searched.
    """
    start, end = _count(segment.get("startIndex") or 0), _count(segment.get("endIndex"))
    words = text_of(segment.get("text"))
    if start is not None and end is not None and start < end:
        for part in texts:
            found = _characters(part.text, start, end)
            if found is not None and (not words or part.text[found[0] : found[1]] == words):
                return part, *found
    for part in texts if words else ():
        if (at := part.text.find(words)) >= 0:
            return part, at, at + len(words)
    return texts[-1], None, None


def _characters(text: str, start: int, end: int) -> tuple[int, int] | None:
    """Convert a range of bytes to a range of characters; None if the text is shorter."""
    if text.isascii():
        return (start, end) if end <= len(text) else None
    data = text.encode(errors="replace")
    if end > len(data):
        return None
    first, second = len(data[:start].decode(errors="ignore")), len(data[:end].decode(errors="ignore"))
    return first, second


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
