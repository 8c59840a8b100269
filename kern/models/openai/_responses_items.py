"""The output items of a response, assembled from its stream and its last event.

The last event should repeat the whole stream. With some servers it repeats nothing, only the last item, or
items without their texts and arguments: then the streamed ones are used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic_core import from_json

from kern.models._failures import StreamFault
from kern.models._reading import damaged, is_plain, items_of, sure_objects, text_in, text_of
from kern.models._text_stream import mended
from kern.models.openai._responses_output import arguments_text, kind_of

_Item = dict[str, Any]
_Same = Callable[[_Item, _Item], bool]


class StreamedItem:
    """An output item that is being streamed."""

    __slots__ = ("arguments", "data", "final_arguments", "whole")

    def __init__(self, data: _Item) -> None:
        self.data = data
        self.whole = False
        self.arguments: list[str] = []
        self.final_arguments = ""
        """The complete arguments from a single event."""

    def put_together(self) -> _Item:
        """Return the item with the streamed arguments."""
        streamed = "".join(self.arguments)
        arguments = self.final_arguments if _lacks(streamed) else streamed
        said = self.data.get("arguments")
        if not arguments or said == arguments or (_lacks(arguments) and not _lacks(said)):
            return self.data
        return {**self.data, "arguments": arguments}


def output_items(answer: _Item) -> list[_Item]:
    """Return the output of a response, which may also be a text or a single item."""
    output = answer.get("output")
    if isinstance(output, dict):
        output = [output]
    text = output if isinstance(output, str) else answer.get("output_text") if not output else None
    if text and isinstance(text, str):
        return [{"type": "message", "role": "assistant", "content": text}]
    return items_of(output)


def check_items(answer: _Item, remarks: list[str]) -> None:
    """Check that the whole output can be read.

    Raises:
        StreamFault: An item is not an object, or has a content of the wrong type.
    """
    output = answer.get("output")
    if output is None or isinstance(output, str | dict):
        return
    for item in sure_objects(output, "output", remarks):
        content = item.get("content")
        if item.get("type") != "message" or not isinstance(content, list) or is_plain(content):
            continue
        for piece in sure_objects(
            [each for each in content if not isinstance(each, str)], "content", remarks
        ):
            if isinstance(piece.get("text"), int | float):
                raise damaged(piece["text"], "the text of a message", "text")


def together(streamed: list[StreamedItem], final: list[_Item]) -> list[_Item]:
    """The items of an answer: those that the stream has brought to an end, as the last event has them, and
    what only that event holds. If it holds none, also those that the stream has only begun.
    """
    made = [(item, item.put_together()) for item in streamed if item.data]
    if not final:
        return [data for _, data in made]
    pairs = _paired([data for _, data in made], final)
    merged = [
        _merged(own, data) if own is not None else data if item.whole else None
        for (item, data), own in zip(made, pairs, strict=True)
    ]
    by_own = {id(own): item for own, item in zip(pairs, merged, strict=True) if own is not None}
    if len(by_own) == sum(item is not None for item in merged):
        return [by_own.get(id(own)) or own for own in final]  # nothing is missing: the last event's order
    items = [item for item in merged if item is not None]
    return [*items, *(own for own in final if id(own) not in by_own)]


def with_text(items: list[_Item], text: str) -> list[_Item]:
    """Return the items with the streamed text, if there is one message and it has less text."""
    messages = [item for item in items if kind_of(item) == "message"]
    if len(messages) != 1:
        return items
    said, parts = _text(messages[0]), items_of(messages[0].get("content"))
    if len(said) >= len(text) or said not in text or any(part.get("type") == "refusal" for part in parts):
        return items
    content = [{"type": "output_text", "text": text}]
    return [{**item, "content": content} if item is messages[0] else item for item in items]


def check_whole(items: list[_Item]) -> None:
    """Check that no text and no call was broken off.

    Raises:
        StreamFault: One was, whatever the status of the response.
    """
    for item in items:
        if item.get("status") == "incomplete" and kind_of(item) in ("message", "function_call"):
            raise StreamFault(f"the answer is incomplete, by the status of its {kind_of(item)}")


def _paired(streamed: list[_Item], final: list[_Item]) -> list[_Item | None]:
    """Find each streamed item in the last event: by its id, its content, or its position."""
    left = list(final)
    pairs: list[_Item | None] = [None] * len(streamed)
    for same in (_same_id, _same_words, _same_kind):
        for at, item in enumerate(streamed):
            if pairs[at] is None:
                pairs[at] = own = next((own for own in left if same(item, own)), None)
                left = [other for other in left if other is not own]
    return pairs


def _same_id(item: _Item, own: _Item) -> bool:
    names = ("call_id", "id") if kind_of(item) == "function_call" else ("id",)
    return kind_of(item) == kind_of(own) and any(
        text_of(item.get(name)) and item.get(name) == own.get(name) for name in names
    )


def _same_words(item: _Item, own: _Item) -> bool:
    if kind_of(item) != kind_of(own):
        return False
    if kind_of(item) == "function_call":
        return item.get("name") == own.get("name") and _value(item) == _value(own)
    return kind_of(item) == "message" and _text(item) == _text(own)


def _same_kind(item: _Item, own: _Item) -> bool:
    if kind_of(item) != kind_of(own):
        return False
    if kind_of(item) != "function_call":
        return True
    return item.get("name") == own.get("name") and (
        _lacks(item.get("arguments")) or _lacks(own.get("arguments"))
    )


def _merged(own: _Item, streamed: _Item) -> _Item:
    """Return an item of the last event, with the arguments or text that only the stream has."""
    if kind_of(own) == "function_call":
        own = {**own, "name": own.get("name") or streamed.get("name")}
        if not _lacks(arguments := streamed.get("arguments")):
            own["arguments"] = arguments
    elif kind_of(own) == "message" and not _text(own) and _text(streamed):
        return {**own, "content": streamed.get("content")}
    return own


def _lacks(arguments: Any) -> bool:
    """Whether arguments are missing or incomplete."""
    text = arguments_text(arguments)
    if text == "{}":
        return True
    try:
        from_json(mended(text))
    except ValueError:
        return True
    return False


def _value(item: _Item) -> Any:
    text = arguments_text(item.get("arguments"))
    try:
        return from_json(mended(text))
    except ValueError:
        return text


def _text(item: _Item) -> str:
    content = item.get("content")
    if isinstance(content, str):
        return content
    return "".join(text_in(part.get("text")) or text_of(part.get("refusal")) for part in items_of(content))
