"""Decodes the answers of `generateContent` and `streamGenerateContent` (server-sent events): no I/O.

Source: https://ai.google.dev/api/generate-content#v1beta.GenerateContentResponse
"""

from __future__ import annotations

from typing import Any

from kern.errors import ModelBehaviorError
from kern.messages import Message, Origin
from kern.models._billed import billed_of, terms_of
from kern.models._codes import explain, has_content
from kern.models._ends import Ends
from kern.models._failures import StreamFault
from kern.models._reading import AnswerReader, count, damaged, items_of, merged, sure_objects, text_of
from kern.models._text_stream import mended_json
from kern.models.base import DeltaSink, ModelResponse, citation_of, provider_call_of, tool_arguments_of
from kern.models.google._ends import blocked_prompt, check_end, more_serious
from kern.models.google._grounding import Grounding
from kern.models.google._parts import AnswerParts
from kern.usage import Usage


class GeminiReader(AnswerReader):
    """Reads one answer. A stream has no event for its end, and may have several finish reasons."""

    def __init__(self, origin: Origin, sink: DeltaSink | None, *, streamed: bool, ends: Ends) -> None:
        super().__init__(origin.model, sink, streamed=streamed)
        shown_to = sink if streamed else None
        self._answer = AnswerParts(
            origin,
            self._content,
            self._reasoning,
            tool_arguments_of(shown_to),
            provider_call_of(shown_to),
        )
        self._put_citation = citation_of(sink)
        self._ends = ends
        self._grounding = Grounding()
        self._word = ""
        self._detail = ""
        self._went_on = False
        self._blocked: dict[str, Any] = {}
        self._usage: Any = None
        self._version: str | None = None
        self._response_id: str | None = None
        self._is_answer = False

    def _read_event(self, name: bytes, data: bytes) -> None:
        self._read_whole(self._parse(data))

    def _read_body(self, data: bytes) -> None:
        """Read an answer, or a list of a stream's events: what Google sends if a proxy drops "alt=sse"."""
        if data.lstrip()[:1] != b"[":
            super()._read_body(data)
            return
        for event in items_of(self._parse(b'{"events":%b}' % data)["events"]):
            self._read_whole(event)

    def _read_whole(self, answer: dict[str, Any]) -> None:
        if has_content(answer.get("error")):
            raise StreamFault(*explain(answer))
        if (usage := answer.get("usageMetadata")) is not None:
            self._usage = usage if self._usage is None else merged(self._usage, usage)
        self._version = text_of(answer.get("modelVersion")) or self._version
        self._response_id = text_of(answer.get("responseId")) or self._response_id
        feedback = answer.get("promptFeedback")
        if isinstance(feedback, dict) and feedback.get("blockReason"):
            self._blocked = feedback
        for candidate in sure_objects(answer.get("candidates"), "candidates", self.remarks):
            if not candidate.get("index"):  # Kern requests one candidate; skip others
                self._is_answer = True
                self._read_candidate(candidate)

    def _read_candidate(self, candidate: dict[str, Any]) -> None:
        content = candidate.get("content")
        if content is not None and not isinstance(content, dict):
            raise damaged(content, "content", "an object")
        parts = sure_objects(content.get("parts"), "parts", self.remarks) if content else []
        if self._halved:  # the other half of a text's character may arrive with the next event
            parts = [part if isinstance(part.get("text"), str) else mended_json(part) for part in parts]
            candidate = mended_json({**candidate, "content": None})
        for part in parts:
            self._answer.add(part)
        self._went_on = self._went_on or (bool(parts) and bool(self._word))
        self._grounding.read(candidate)
        if word := text_of(candidate.get("finishReason")):
            decides = more_serious(self._word, word)
            if decides == word:
                self._detail = text_of(candidate.get("finishMessage"))
            self._word = decides
            self._went_on = False

    def _respond(self) -> ModelResponse:
        self._answer.end(halved=self._halved)
        usage, _ = self._used()
        content = self._content.whole()
        if not self._is_answer:
            self._check_blocked(usage)
        calls = self._answer.calls
        check_end(self._word, self._detail, self._ends, usage=usage, content=content, calls=bool(calls))
        if self._went_on:
            raise StreamFault(
                f"the answer continued after its finish reason {self._word!r}, and ended without another"
            )
        if self._answer.cut:
            raise StreamFault("the answer broke off in the middle of the arguments of a call")
        if self._answer.close_calls():
            raise StreamFault("the answer broke off: a call that the provider carries out has no result")
        self._check_known()
        self._grounding.into(self._answer, self._put_citation)
        message = Message("assistant", parts=self._answer.parts, usage=usage)
        return ModelResponse(
            message,
            usage,
            "tool_calls" if calls else "stop",
            provider_finish_reason=self._word,
            response_id=self._response_id,
            model=self._version,
        )

    def _used(self) -> tuple[Usage, bool]:
        return _usage(self._usage, self._grounding.searches(self._version or self._model)), bool(self._word)

    def _has_begun(self) -> bool:
        return super()._has_begun() or bool(self._answer.parts)

    def _check_blocked(self, usage: Usage) -> None:
        if self._blocked:
            reason = text_of(self._blocked.get("blockReason"))
            raise blocked_prompt(reason, text_of(self._blocked.get("blockReasonMessage")), usage)
        raise StreamFault("the answer has no candidate")

    def _check_known(self) -> None:
        """An answer may be empty only if it has no part that Kern cannot read."""
        unknown = ", ".join(sorted(self._answer.unknown))
        if unknown and not self._answer.parts:
            raise ModelBehaviorError(
                f"the answer has no text and no call of a function, only parts of these kinds: {unknown}; "
                "Kern does not support them"
            )
        if unknown:
            self.remarks.append(f"parts of the answer that Kern does not support: {unknown}")


def _usage(usage: Any, searches: int) -> Usage:
    """The usage as Kern counts it: thoughts are output, and results of Google's tools are input."""
    thoughts = count(usage, "thoughtsTokenCount")
    spent = count(usage, "promptTokenCount") + count(usage, "toolUsePromptTokenCount")
    said = count(usage, "candidatesTokenCount") + thoughts
    return Usage(
        input_tokens=spent,
        output_tokens=said,
        total_tokens=max(count(usage, "totalTokenCount"), spent + said),
        cached_tokens=count(usage, "cachedContentTokenCount"),
        reasoning_tokens=thoughts,
        requests=1,
        billed=_billed(usage, searches),
        terms=terms_of(service_tier=usage.get("serviceTier") or usage.get("trafficType"))
        if isinstance(usage, dict)
        else None,
    )


def _billed(usage: Any, searches: int) -> dict[str, int] | None:
    """What has its own price: searches, and tokens of other kinds than text."""
    read, cached, made = (
        _kinds(usage, *names)
        for names in (
            ("promptTokensDetails", "toolUsePromptTokensDetails"),
            ("cacheTokensDetails",),
            ("candidatesTokensDetails",),
        )
    )
    counts: dict[str, int] = {"web_searches": searches}
    for kind in {**read, **cached}:
        counts[f"input_{kind}_tokens"] = read.get(kind, 0) - cached.get(kind, 0)
        counts[f"cache_{kind}_read_tokens"] = cached.get(kind, 0)
    for kind, number in made.items():
        counts[f"output_{kind}_tokens"] = number
    return billed_of(**counts)


def _kinds(usage: Any, *names: str) -> dict[str, int]:
    """The tokens of images, audio and video; documents count as images."""
    kinds: dict[str, int] = {}
    for name in names:
        for item in items_of(usage.get(name)) if isinstance(usage, dict) else ():
            kind = text_of(item.get("modality")).lower()
            kind = "image" if kind == "document" else kind
            if kind in ("audio", "image", "video"):
                kinds[kind] = kinds.get(kind, 0) + count(item, "tokenCount")
    return kinds
