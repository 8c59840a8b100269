"""Converts the parts of Google's answers into Kern's, as they arrive."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import uuid4

from pydantic_core import to_json

from kern.messages import (
    Audio,
    File,
    Image,
    Media,
    Origin,
    Part,
    ProviderCall,
    ReasoningPart,
    TextPart,
    ToolCall,
    Video,
)
from kern.models._reading import damaged, text_of
from kern.models._text_stream import TextStream, mended, mended_json
from kern.models.google._pieces import Pieces

SIGNATURE = "thoughtSignature"
CALLED, ANSWERED = "call", "result"
"""The keys of a `ProviderCall`'s `provider_data` that hold the two parts as Google sent them."""
_CODE = "code_execution"
_LONGEST_KIND = 80
_BESIDE = frozenset({SIGNATURE, "thought", "partMetadata", "videoMetadata", "mediaResolution"})
_KINDS: tuple[tuple[str, type[Media]], ...] = (("image/", Image), ("audio/", Audio), ("video/", Video))


class AnswerParts:
    """Assembles the parts of one answer.

    Args:
        origin: The provider and the model.
        content, reasoning: Receive the texts as they arrive.
        on_arguments: Receives the arguments of a function call; None if nobody listens.
        on_call: Receives the calls that the provider carries out; None if nobody listens.
    """

    def __init__(
        self,
        origin: Origin,
        content: TextStream,
        reasoning: TextStream,
        on_arguments: Callable[[str, str, str], None] | None,
        on_call: Callable[[ProviderCall], None] | None,
    ) -> None:
        self.parts: list[Part] = []
        self.unknown: set[str] = set()
        self.cut = False
        """Whether the answer ended in the middle of a call's arguments."""
        self._origin = origin
        self._content = content
        self._reasoning = reasoning
        self._on_arguments = on_arguments
        self._on_call = on_call
        self._pieces: list[str] = []
        self._open: TextPart | ReasoningPart | None = None
        self._ids: set[str] = set()
        self._gathered: tuple[ToolCall, Pieces] | None = None
        """The call whose arguments arrive in pieces."""
        self._running: dict[str, dict[str, ProviderCall]] = {}
        """The provider's calls without a result, by name and id."""

    def add(self, raw: dict[str, Any]) -> None:
        """Add a part as Google sent it."""
        if isinstance(text := raw.get("text"), str):
            self._add_text(text, thought=raw.get("thought") is True, signature=raw.get(SIGNATURE))
            return
        if text is not None:
            raise damaged(text, "the text of a part", "text")
        for name in raw.keys() & _READERS.keys():
            if not isinstance(raw[name], dict | None):
                raise damaged(raw[name], name, "an object")
        kinds = [name for name, value in raw.items() if name not in _BESIDE and isinstance(value, dict)]
        if not kinds and text_of(raw.get(SIGNATURE)):
            self._add_text("", thought=raw.get("thought") is True, signature=raw[SIGNATURE])
            return
        self._close()
        for kind in kinds:
            take = _READERS.get(kind)
            if take is None:
                self.unknown.add(kind[:_LONGEST_KIND])
            else:
                take(self, raw[kind], raw)

    def end(self, *, halved: bool) -> None:
        """End the answer. `halved`: texts may hold halves of surrogate pairs."""
        self._close()
        if self._gathered is not None:  # Vertex AI may leave out the last part of a call
            self.cut = not self._gathered[1].complete
            self._end_call()
        if not halved:
            return
        for part in self.parts:
            if isinstance(part, TextPart | ReasoningPart):
                part.text = mended(part.text)
            part.provider_data = mended_json(part.provider_data)

    @property
    def calls(self) -> list[ToolCall]:
        """The calls of functions."""
        return [part for part in self.parts if isinstance(part, ToolCall)]

    @property
    def texts(self) -> list[TextPart]:
        """The texts of the answer."""
        return [part for part in self.parts if isinstance(part, TextPart)]

    def close_calls(self) -> bool:
        """Set the status of the provider's calls without a result; True if the answer ends with one.

        The model may write code that is not run. If the model has also called functions, the result of a
        tool may arrive with the next answer.
        """
        running = [part for part in self.parts if isinstance(part, ProviderCall) and part.status == "running"]
        for part in running:
            part.status = "failed" if part.name == _CODE else "completed"
        return bool(running) and self.parts[-1] is running[-1]

    def put_call(self, call: ProviderCall) -> None:
        """Add a call that the provider reports beside the answer: it was made before the text."""
        call.origin = self._origin
        at = next((at for at, part in enumerate(self.parts) if isinstance(part, TextPart)), len(self.parts))
        self.parts.insert(at, call)
        self._put(replace(call, status="running", result=None))
        self._put(call)

    def new_id(self) -> str:
        """An id for a call that the provider sent without one."""
        return f"call_{uuid4().hex}"

    def _add_text(self, text: str, *, thought: bool, signature: Any) -> None:
        kind: type[TextPart] | type[ReasoningPart] = ReasoningPart if thought else TextPart
        signed = text_of(signature)
        if type(self._open) is not kind or signed:
            if not text and not signed:
                return
            self._close()
            if thought and text:
                self._reasoning.part()  # as `Message.reasoning_content` joins the steps
            self._open = kind(text="", origin=self._origin)
            self.parts.append(self._open)
        self._pieces.append(text)
        (self._reasoning if thought else self._content).add(text)
        if signed:
            if isinstance(self._open, ReasoningPart):
                self._open.signature = signed
            elif self._open is not None:
                self._open.provider_data = {SIGNATURE: signed}
            self._close()  # a part with a signature is not joined with one without

    def _close(self) -> None:
        if self._open is not None:
            self._open.text = "".join(self._pieces)
            self._open = None
            self._pieces = []

    def _add_call(self, call: dict[str, Any], raw: dict[str, Any]) -> None:
        if self._gathered is not None and not call.get("name"):
            self._gather(self._gathered[1], call, raw)
            return
        if not call and not text_of(raw.get(SIGNATURE)):
            return  # the end of a call that has ended before
        before = self.parts[-1] if self.parts else None
        if not call.get("name") and isinstance(before, ToolCall) and before.arguments == "{}":
            # The name came first, the arguments come now.
            if isinstance(args := call.get("args"), dict) and args:
                before.arguments = to_json(args).decode()
                self._tell_arguments(before)
            before.provider_data = _signed(before.provider_data or {}, raw) or None
            return
        given = text_of(call.get("id"))
        made = given if given and given not in self._ids else self.new_id()
        self._ids.add(made)
        kept = {"id": given} if given else {}
        arguments = call.get("args")
        if arguments is not None and not isinstance(arguments, dict):
            raise damaged(arguments, "the args of a call", "an object")
        text = to_json(arguments).decode() if isinstance(arguments, dict) and arguments else "{}"
        name = text_of(call.get("name"))
        data = _signed(kept, raw) or None
        self._end_call()
        made_call = ToolCall(made, name, text, data, origin=self._origin)
        self.parts.append(made_call)
        if call.get("willContinue") or call.get("partialArgs"):
            pieces = Pieces()
            self._gathered = made_call, pieces
            self._gather(pieces, call, {})
        else:
            self._tell_arguments(made_call)

    def _gather(self, pieces: Pieces, call: dict[str, Any], raw: dict[str, Any]) -> None:
        """Add pieces of a call's arguments."""
        if self._gathered is None:
            return
        pieces.value |= call.get("args") or {}
        pieces.add(call.get("partialArgs"))
        made = self._gathered[0]
        made.provider_data = _signed(made.provider_data or {}, raw) or None
        if not call.get("willContinue"):
            self._end_call()

    def _end_call(self) -> None:
        """End the call whose arguments arrived in pieces."""
        if self._gathered is None:
            return
        call, pieces = self._gathered
        self._gathered = None
        if pieces.value:
            call.arguments = to_json(pieces.value).decode()
        self._tell_arguments(call)

    def _tell_arguments(self, call: ToolCall) -> None:
        if self._on_arguments is not None:
            self._on_arguments(call.id, call.name, call.arguments)

    def _add_code(self, code: dict[str, Any], raw: dict[str, Any]) -> None:
        arguments = {name: text_of(code.get(name)) for name in ("language", "code") if code.get(name)}
        self._start(_CODE, text_of(code.get("id")), arguments, raw)

    def _add_output(self, output: dict[str, Any], raw: dict[str, Any]) -> None:
        result = {name: output[name] for name in ("outcome", "output") if name in output}
        failed = output.get("outcome") != "OUTCOME_OK"
        self._finish(_CODE, text_of(output.get("id")), result, raw, failed=failed)

    def _add_tool_call(self, call: dict[str, Any], raw: dict[str, Any]) -> None:
        self._start(_tool_name(call), text_of(call.get("id")), call.get("args") or {}, raw)

    def _add_tool_response(self, answer: dict[str, Any], raw: dict[str, Any]) -> None:
        result = answer.get("response")
        self._finish(_tool_name(answer), text_of(answer.get("id")), result, raw, failed=False)

    def _start(self, name: str, given: str, arguments: Any, raw: dict[str, Any]) -> None:
        call = ProviderCall(
            given or self.new_id(),
            name,
            to_json(arguments).decode(),
            status="running",
            provider_data={CALLED: raw},
            origin=self._origin,
        )
        self.parts.append(call)
        self._running.setdefault(name, {})[call.id] = call
        self._put(call)

    def _finish(self, name: str, given: str, result: Any, raw: dict[str, Any], *, failed: bool) -> None:
        running = self._running.get(name, {})
        call = running.pop(given if given in running else next(iter(running), ""), None)
        if call is None:
            call = ProviderCall(given or self.new_id(), name, origin=self._origin, provider_data={})
            self.parts.append(call)
        call.result = result
        call.status = "failed" if failed else "completed"
        call.provider_data = {**(call.provider_data or {}), ANSWERED: raw}
        self._put(call)

    def _add_bytes(self, blob: dict[str, Any], raw: dict[str, Any]) -> None:
        if raw.get("thought") is True and not raw.get(SIGNATURE):
            return  # a draft
        kind = text_of(blob.get("mimeType"))
        try:
            content = base64.b64decode(text_of(blob.get("data")), validate=True)
        except (binascii.Error, ValueError):
            self.unknown.add("inlineData that is not base64")
            return
        self._add_media(kind, raw, content=content)

    def _add_file(self, file: dict[str, Any], raw: dict[str, Any]) -> None:
        if url := text_of(file.get("fileUri")):
            self._add_media(text_of(file.get("mimeType")), raw, url=url)

    def _add_media(self, kind: str, raw: dict[str, Any], **where: Any) -> None:
        media = next((media for start, media in _KINDS if kind.startswith(start)), File)
        data = _signed({}, raw) or None
        self.parts.append(media(mime_type=kind or None, provider_data=data, origin=self._origin, **where))

    def _put(self, call: ProviderCall) -> None:
        if self._on_call is not None:
            self._on_call(replace(call))  # a copy: the call changes when its result arrives


def _signed(data: dict[str, Any], raw: dict[str, Any]) -> dict[str, Any]:
    signature = text_of(raw.get(SIGNATURE))
    return {**data, SIGNATURE: signature} if signature else data


def _tool_name(call: dict[str, Any]) -> str:
    return text_of(call.get("toolType")).lower()[:_LONGEST_KIND] or "tool"


_READERS: dict[str, Callable[[AnswerParts, dict[str, Any], dict[str, Any]], None]] = {
    "functionCall": AnswerParts._add_call,
    "executableCode": AnswerParts._add_code,
    "codeExecutionResult": AnswerParts._add_output,
    "toolCall": AnswerParts._add_tool_call,
    "toolResponse": AnswerParts._add_tool_response,
    "inlineData": AnswerParts._add_bytes,
    "fileData": AnswerParts._add_file,
}
