"""The parts of a chat completion beside text and calls: what must be sent back, and images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import uuid4

from kern.messages import Citation, Image, Origin, ProviderCall
from kern.models._reading import text_of
from kern.models.openai._citations import citation, listed
from kern.models.openai._media import decoded

_RUN_RESULTS = ("output", "search_results", "code_results", "browser_results")
_PIECES = {"reasoning.text": "text", "reasoning.summary": "summary"}
"""The kinds of reasoning that are streamed in deltas, and the field of the delta."""


class Kept:
    """Collects what servers must get back unchanged, and the images that they made.

    `reasoning_details` (OpenRouter and others) is reasoning with its signatures, `extra_content` is Gemini's
    (https://ai.google.dev/gemini-api/docs/thought-signatures#openai). An annotation of the type "file" is the
    text of a document that OpenRouter has parsed; it parses the document again, for money, unless it gets the
    annotation back (https://openrouter.ai/docs/features/multimodal/pdfs).
    """

    def __init__(
        self, origin: Origin, *, streamed: bool, on_call: Callable[[ProviderCall], None] | None = None
    ) -> None:
        self.images: list[Image] = []
        self.runs: list[ProviderCall] = []
        """The tools that the server ran itself, as Groq reports them in `executed_tools`."""
        self._by_index: dict[Any, ProviderCall] = {}
        self._origin = origin
        self._on_call = on_call
        self._streamed = streamed
        self._details: list[tuple[dict[str, Any], dict[str, list[str]]]] = []
        """Each item with the deltas of its texts, by the names of the texts."""
        self._extra: dict[str, Any] = {}
        self._files: list[dict[str, Any]] = []
        self.citations: list[Citation] = []

    @property
    def record(self) -> dict[str, Any]:
        """Return what must be sent back with the message, by its name in the protocol."""
        if not (self._details or self._extra or self._files):
            return {}
        details = [
            detail | {name: "".join(texts) for name, texts in pieces.items()}
            for detail, pieces in self._details
        ]
        kept = {"reasoning_details": details, "extra_content": self._extra, "annotations": self._files}
        return {name: value for name, value in kept.items() if value}

    def read(self, said: dict[str, Any], *, whole: bool) -> None:
        """Read these parts of a message or a delta. A whole message may repeat what was read before."""
        if not (whole and self._details):
            for detail in _objects(said.get("reasoning_details")):
                self._read_detail(dict(detail))
        if isinstance(extra := said.get("extra_content"), dict):
            self._extra.update(extra)
        for annotation in _objects(said.get("annotations")):
            self._read_annotation(annotation)
        for part in _objects(said.get("images")):
            self._read_image(part)
        for number, run in enumerate(_objects(said.get("executed_tools"))):
            self._read_run(run, run.get("index", number))

    def read_sources(self, answer: dict[str, Any]) -> None:
        """Read the sources that an answer lists beside its text, as Perplexity's, if the text cites none."""
        sources = answer.get("search_results") or answer.get("citations")
        if self.citations or not isinstance(sources, list):
            return
        named = [source if isinstance(source, dict) else {"url": source} for source in sources]
        self.citations += filter(None, map(listed, named))

    def _read_annotation(self, annotation: dict[str, Any]) -> None:
        if annotation.get("type") == "file":
            if annotation not in self._files:
                self._files.append(annotation)
            return
        cited = annotation.get(str(annotation.get("type")))
        made = citation(cited if isinstance(cited, dict) else annotation, 0)
        if made is not None and made not in self.citations:
            self.citations.append(made)

    def _read_detail(self, detail: dict[str, Any]) -> None:
        kind = detail.get("type")
        name = _PIECES.get(kind, "") if isinstance(kind, str) else ""
        piece = detail.pop(name, None)
        last, pieces = self._details[-1] if self._details else ({}, {})
        same = kind == last.get("type") and detail.get("index") == last.get("index")
        if self._streamed and name and same:
            last.update({key: value for key, value in detail.items() if value is not None})
        else:
            pieces = {}
            self._details.append((detail, pieces))
        if isinstance(piece, str):
            pieces.setdefault(name, []).append(piece)

    def _read_run(self, run: dict[str, Any], index: Any) -> None:
        """Read a tool that the server ran: it is reported when it begins, and again with its result."""
        call = self._by_index.get(index) if isinstance(index, int) else None
        if call is None:
            name = text_of(run.get("type")) or text_of(run.get("name")) or "tool"
            arguments = text_of(run.get("arguments")) or "{}"
            call = ProviderCall(f"call_{uuid4().hex}", name, arguments, status="running", origin=self._origin)
            self.runs.append(call)
            if isinstance(index, int):
                self._by_index[index] = call
            self._put(call)
        results = {name: run[name] for name in _RUN_RESULTS if run.get(name)}
        if call.status == "running" and (results.keys() - {"search_results"} or not self._streamed):
            call.status, call.result = "completed", results
            self._put(call)

    def end(self) -> None:
        """Note that the answer has ended: the tools that were run have ended, too."""
        for call in self.runs:
            if call.status == "running":
                call.status = "completed"
                self._put(call)

    def _put(self, call: ProviderCall) -> None:
        if self._on_call is not None:
            self._on_call(replace(call))

    def _read_image(self, part: dict[str, Any]) -> None:
        place = part.get("image_url")
        url = place.get("url") if isinstance(place, dict) else None
        image = image_of(url) if isinstance(url, str) and url else None
        if image is not None and image not in self.images:  # some servers repeat them at the end
            self.images.append(image)


def image_of(url: str) -> Image | None:
    """Return the image of a URL, for a `data:` URL with its bytes; None if those are damaged."""
    if not url.startswith("data:"):
        return Image(url=url)
    head, _, data = url.removeprefix("data:").partition(",")
    content = decoded(data)
    return None if content is None else Image(content=content, mime_type=head.split(";")[0] or None)


def _objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
