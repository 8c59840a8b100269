"""The common part of all answer decoders: bytes in, deltas to the sink, a `ModelResponse` out."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, Protocol

from pydantic_core import from_json

from kern.models._failures import StreamFault
from kern.models._sse import EventStream
from kern.models._text_stream import TextStream, mended
from kern.models.base import DeltaSink, ModelResponse, commentary_of
from kern.usage import CUT_OFF, Usage

_MOST = 2**53  # a larger number is not a token count, and JavaScript cannot represent it exactly

_LONGEST_INDEX = 10
INPUT_OF_NONE = "the answer is damaged: the input of a call arrived without the start of that call"


class Events(Protocol):
    """Cuts a stream of bytes into events."""

    def feed(self, chunk: bytes) -> Iterable[tuple[bytes, bytes]]:
        """The events that `chunk` completes: their names and their data."""
        ...


class AnswerReader(ABC):
    """Decodes one answer, which is an event stream or a plain JSON body.

    Args:
        model: The id of the model that was asked.
        sink: Receives the deltas; None if nobody listens.
        streamed: The answer is an event stream.
    """

    def __init__(self, model: str, sink: DeltaSink | None, *, streamed: bool) -> None:
        self.done = False
        self.remarks: list[str] = []
        self._model = model
        self._sink = sink
        self._events: Events | None = EventStream() if streamed else None
        self._body: list[bytes] = []
        if not streamed:
            sink = None  # a plain answer is shown only after it was checked
        self._content = TextStream(None if sink is None else sink.content)
        self._reasoning = TextStream(None if sink is None else sink.reasoning)
        self._commentary = TextStream(commentary_of(sink))
        self._halved = False
        self._is_read = False

    @property
    def shown(self) -> bool:
        """Whether a delta was put into the sink."""
        return self._content.shown or self._reasoning.shown or self._commentary.shown

    def feed(self, chunk: bytes) -> None:
        """Read the next bytes of the body; `StreamFault` if they are malformed or report an error."""
        if self._events is None:
            self._body.append(chunk)
            return
        for name, data in self._events.feed(chunk):
            if self.done:
                return
            self._read_event(name, data)

    def finish(self) -> ModelResponse:
        """Return the answer after the last byte; `StreamFault` if it is incomplete."""
        if self._events is None:
            self._read_body(b"".join(self._body))
            self._is_read = True
        if self._halved:
            for strand in (self._reasoning, self._commentary, self._content):
                strand.end()
        response = self._respond()
        message = response.message
        # Some servers ignore `stream`, or send the text only in the final event.
        if self._sink is not None:
            if message.reasoning_content and not self._reasoning.shown:
                self._sink.reasoning(message.reasoning_content)
            put_commentary = commentary_of(self._sink)
            if message.commentary and not self._commentary.shown and put_commentary is not None:
                put_commentary(message.commentary)
            if message.content and not self._content.shown:
                self._sink.content(message.content)
        return response

    def spent(self) -> Usage | None:
        """The billed usage of an answer that is discarded; None if the answer had not begun.

        If the answer broke off before its usage arrived, it counts as one of `CUT_OFF`, so that its cost
        is unknown.
        """
        usage, is_final = self._used()
        if is_final and (usage.input_tokens or usage.output_tokens):
            return usage
        if not (self._has_begun() or usage.output_tokens):
            return None
        usage.billed = {**(usage.billed or {}), CUT_OFF: 1}
        return usage

    @abstractmethod
    def _used(self) -> tuple[Usage, bool]:
        """The usage that the answer has reported so far, and whether that report is final."""

    def _has_begun(self) -> bool:
        """Whether any part of an answer has arrived."""
        strands = (self._content, self._reasoning, self._commentary)
        return any(strand.whole() for strand in strands)

    @abstractmethod
    def _read_event(self, name: bytes, data: bytes) -> None:
        """Read one event of the stream."""

    def _read_body(self, data: bytes) -> None:
        """Read an answer that is not an event stream."""
        self._read_whole(self._parse(data))

    @abstractmethod
    def _read_whole(self, answer: dict[str, Any]) -> None:
        """Read an answer that came as one JSON object."""

    @abstractmethod
    def _respond(self) -> ModelResponse:
        """Build the response from what was read; `StreamFault` if it is incomplete."""

    def _parse(self, data: bytes) -> dict[str, Any]:
        """Parse a JSON object; `StreamFault` if the bytes are something else."""
        try:
            value = from_json(data)
        except ValueError as error:
            if self._events is not None and not data.strip():
                return {}  # an event without data: proxies send them to keep a connection alive
            value = _parse_halves(data, error)
            if not self._halved:
                self._halved = True
                for strand in (self._reasoning, self._commentary, self._content):
                    strand.watch()
        if not isinstance(value, dict):
            raise StreamFault("the answer is not a JSON object", quoting=data)
        return value

    def _whole_text(self, text: str) -> str:
        """Joined deltas in which halves of surrogate pairs are joined to characters."""
        return mended(text) if self._halved else text


def _parse_halves(data: bytes, error: ValueError) -> Any:
    """Parse JSON that holds halves of surrogate pairs, which pydantic's parser rejects: `CharacterJoiner`."""
    try:
        return json.loads(data.decode(errors="surrogateescape"))
    except (ValueError, RecursionError):
        raise StreamFault("the answer is not valid JSON", quoting=data) from error


def merged(usage: Any, later: Any) -> Any:
    """Merge two usage objects of one answer: a later 0 or missing count does not replace an earlier one."""
    if not isinstance(usage, dict) or not isinstance(later, dict):
        is_known = isinstance(usage, dict | int | float) and not isinstance(usage, bool)
        is_count = isinstance(later, int | float) and not isinstance(usage, dict) and later > 0
        return usage if is_known and not is_count else later
    return {**usage, **{name: merged(usage.get(name), value) for name, value in later.items()}}


def count(details: Any, name: str) -> int:
    """The token count `details[name]`; 0 if it, or all of `details`, is missing or is not a count."""
    value = details.get(name) if isinstance(details, dict) else None
    if type(value) is int and 0 <= value <= _MOST:  # the usual case
        return value
    if value is None:
        return 0
    if isinstance(value, float) and math.isfinite(value):
        value = int(value)
    return min(max(value, 0), _MOST) if isinstance(value, int) and not isinstance(value, bool) else 0


def sure_text(value: Any, where: str) -> str:
    """A text of the answer; "" if it is missing.

    Raises:
        StreamFault: The value is not text, so a part of the answer would be lost.
    """
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    raise damaged(value, where, "text")


def sure_objects(value: Any, where: str, remarks: list[str]) -> list[dict[str, Any]]:
    """The objects in a list of the answer; a null among them is skipped with a remark.

    Raises:
        StreamFault: The value is not a list, or an item is not an object, so a part of the answer would be
            lost.
    """
    if type(value) is list and len(value) == 1 and type(value[0]) is dict:  # as nearly always
        return value
    if value is None or value in ("", {}):
        return []
    if not isinstance(value, list):
        raise damaged(value, where, "a list")
    objects: list[dict[str, Any]] = []
    for item in value:
        if isinstance(item, dict):
            objects.append(item)
        elif item is None:
            remark(remarks, f"null in {where} is skipped")
        else:
            raise damaged(item, f"an item of {where}", "an object")
    return objects


def text_beside(value: Any, where: str, remarks: list[str]) -> str:
    """A text beside the answer, such as reasoning; a value that is not text is skipped with a remark."""
    if value is not None and not isinstance(value, str):
        remark(remarks, f"{where} is {_kind(value)}, not text, and is skipped")
        return ""
    return value or ""


def index_of(value: Any) -> int | None:
    """The index of a block, which some servers write as a text or a float; None if it is not an index."""
    if isinstance(value, str) and value.isdecimal():
        return int(value) if len(value) < _LONGEST_INDEX else None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if type(value) is int else None


def remark(remarks: list[str], text: str) -> None:
    """Add `text` to the remarks about an answer, once."""
    if text not in remarks:
        remarks.append(text)


def damaged(value: Any, where: str, wanted: str) -> StreamFault:
    """The fault of an answer in which a value has the wrong type."""
    return StreamFault(f"the answer is damaged: {where} is {_kind(value)}, not {wanted}")


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    kinds = {dict: "an object", list: "a list", str: "text", int: "a number", float: "a number"}
    return kinds.get(type(value), "null")


def items_of(value: Any) -> list[dict[str, Any]]:
    """The objects in a list; empty if `value` is not a list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def text_of(value: Any) -> str:
    """`value` if it is a str, else ""."""
    return value if isinstance(value, str) else ""


def text_in(value: Any) -> str:
    """The text of a content part; some servers nest it in an object or in further parts."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return text_of(value.get("text") or value.get("value"))
    if isinstance(value, list):
        return "".join(item if isinstance(item, str) else text_in(item) for item in value)
    return ""


def is_plain(content: Any) -> bool:
    """Whether content is a bare JSON value, as some servers send in JSON mode, not text or typed parts."""
    if isinstance(content, list):
        return bool(content) and not any(isinstance(item, str) or _is_part(item) for item in content)
    return not isinstance(content, str) and content != {} and not _is_part(content)


def _is_part(value: Any) -> bool:
    return isinstance(value, dict) and (
        isinstance(value.get("type"), str) or bool(text_in(value.get("text")))
    )
