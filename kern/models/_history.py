"""Prepares earlier messages for a request, for all protocols: arguments, names and ids that servers accept.

Earlier messages are read from a database, so they may be damaged: what does not fit is left out.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic_core import from_json, to_json

from kern.errors import UsageError
from kern.messages import Media, Message, Part, TextPart, ToolCall
from kern.models._text_stream import mended
from kern.tools.result import mention

BROKEN_ARGUMENTS = "invalid_json"
"""The key under which arguments that are not a JSON object go back to the model that wrote them."""


def record_of(data: Mapping[str, Any] | None, provider: str, model: str) -> Mapping[str, Any] | None:
    """The part of `provider_data` that this model wrote with this protocol, or None."""
    record = data.get(provider) if isinstance(data, Mapping) else None
    if isinstance(record, Mapping) and record.get("model") == model:
        return record
    return None


def sound_arguments(call: ToolCall) -> str:
    """The arguments of an earlier call as the text of a JSON object.

    vLLM, llama.cpp and others parse them to build the prompt, and reject a conversation with anything else.
    Text that is not a JSON object is wrapped in one, so that the model sees its mistake.
    """
    text = mended(call.arguments)
    if not text.strip():
        return "{}"
    try:
        value = from_json(text, allow_inf_nan=False)
    except ValueError:
        value = text
    if isinstance(value, dict):
        return text
    return "{}" if value is None else to_json({BROKEN_ARGUMENTS: text}).decode()


def arguments_object(arguments: str) -> dict[str, Any]:
    """The arguments of an earlier call as a JSON object; other text is wrapped in one."""
    arguments = mended(arguments)
    if not arguments.strip():
        return {}
    try:
        value = from_json(arguments, allow_inf_nan=False)
    except ValueError:
        value = arguments
    if isinstance(value, dict):
        return value
    return {} if value is None else {BROKEN_ARGUMENTS: arguments}


def segments(messages: Sequence[Message]) -> Iterator[tuple[Message | None, list[Message]]]:
    """Each answer with the messages of users and tools that follow it, up to the next answer."""
    for answer, following in _all_segments(messages):
        said = [message for message in following if message.role in ("user", "tool")]
        if answer is not None or said:
            yield answer, said


def _all_segments(messages: Sequence[Message]) -> Iterator[tuple[Message | None, list[Message]]]:
    answer: Message | None = None
    following: list[Message] = []
    for message in messages:
        if message.role == "assistant":
            yield answer, following
            answer, following = message, []
        else:
            following.append(message)
    yield answer, following


_FOREIGN = re.compile(r"[^A-Za-z0-9_-]")
_LONGEST_NAME = 64


def call_name(given: str) -> str:
    """The name of an earlier call, with other characters than providers accept replaced.

    The name may be one that the model invented; the result of that call says that there is no such tool.
    """
    return shortened(_FOREIGN.sub("_", given), given, _LONGEST_NAME) or "unnamed"


def call_id(given: str | None, longest: int) -> str:
    """The id of a call in at most `longest` characters; another provider's may be longer."""
    return shortened(given or "", given or "", longest)


def shortened(text: str, given: str, longest: int) -> str:
    """`text`; if it is too long, its beginning and a hash of `given`, so that it stays unique."""
    if len(text) <= longest:
        return text
    return f"{text[: longest - 9]}-{hashlib.sha256(given.encode(errors='replace')).hexdigest()[:8]}"


class UniqueIds:
    """Makes ids of calls that a service accepts, and that are unique in a conversation.

    Args:
        foreign: Matches the characters that the service does not accept; None: it accepts all.
        longest: The most characters of an id; None: any number.
    """

    __slots__ = ("_foreign", "_longest", "_used")

    def __init__(self, foreign: re.Pattern[str] | None = None, longest: int | None = None) -> None:
        self._foreign = foreign
        self._longest = longest
        self._used: dict[str, int] = {}

    def fresh(self, given: str) -> str:
        """Return `given` as the service accepts it, changed if an earlier call has that id."""
        base = given if self._foreign is None else self._foreign.sub("_", given)
        if self._longest is not None:
            base = shortened(base, given, self._longest)
        new = base = base or "call"
        kept = None if self._longest is None else self._longest - 8
        while new in self._used:
            self._used[base] += 1
            new = f"{base[:kept]}-{self._used[base]}"
        self._used[new] = 1
        return new


def has_media(message: Message) -> bool:
    """Whether the message has media, which may have to be read from a file or encoded in base64."""
    for part in message.parts:  # noqa: SIM110 - a generator costs more than the loop
        if isinstance(part, Media):
            return True
    return False


def shown_media(
    message: Message,
    part_of: Callable[[Any], dict[str, Any]],
    left_out: Callable[[Media], bool] = lambda media: False,
) -> tuple[list[dict[str, Any]], list[str]]:
    """The message's media as parts, and a mention in words of those that this protocol cannot send.

    Args:
        message: The message. Media of an earlier message may come from another provider or from a database.
        part_of: Makes the part for one of the media, or raises `UsageError`.
        left_out: Whether to skip one of the media altogether.

    Raises:
        UsageError: The protocol cannot send media of a new input.
    """
    parts: list[dict[str, Any]] = []
    mentions: list[str] = []
    for media in message.parts:
        if not isinstance(media, Media) or left_out(media):
            continue
        try:
            parts.append(part_of(media))
        except UsageError:
            if message.role not in ("assistant", "tool") and not message.from_history:
                raise
            mentions.append(mention(media))
    return parts, mentions


NO_RESULT = "This call was not carried out."
"""The result that a call without a result gets."""


def answered(messages: Sequence[Message], *, unique: bool = False) -> Sequence[Message]:
    """The conversation as services accept it: the results of all calls follow the answer that made them.

    A call without a result gets one that says so. A result without its call becomes a text of the user.
    The calls of one answer get different ids.

    Args:
        messages: The conversation, which may come from a row or from the application.
        unique: Whether ids must be different in the whole conversation.

    Returns:
        The messages themselves, if nothing has to change.
    """
    return messages if _is_sound(messages, unique) else list(_mended(messages, unique))


def _is_sound(messages: Sequence[Message], unique: bool) -> bool:
    due: set[str | None] = set()
    seen: set[str | None] = set()
    for message in messages:
        if message.role == "tool":
            if message.tool_call_id not in due:
                return False
            due.remove(message.tool_call_id)
        elif due:
            return False
        elif message.role == "assistant" and not message.is_text and (calls := message.tool_calls):
            due = {call.id for call in calls}
            if len(due) < len(calls) or (unique and not due.isdisjoint(seen)):
                return False
            seen |= due
    return not due


def _mended(messages: Sequence[Message], unique: bool) -> Iterator[Message]:
    ids = UniqueIds()
    for answer, following in _all_segments(messages):
        ids = ids if unique else UniqueIds()
        results: dict[str | None, list[Message]] = {}
        for message in following if answer is not None else ():
            if message.role == "tool":
                results.setdefault(message.tool_call_id, []).append(message)
        in_order: list[Message] = []
        parts: list[Part] = []
        for part in answer.parts if answer is not None else ():
            if isinstance(part, ToolCall):
                found = results.get(part.id) or [_no_result(part)]
                call_id = ids.fresh(part.id)
                in_order.append(replace(found.pop(0), tool_call_id=call_id))
                part = part if call_id == part.id else replace(part, id=call_id)
            parts.append(part)
        if answer is not None:
            yield replace(answer, parts=parts)
        yield from in_order
        stray = {id(message) for left in results.values() for message in left}
        for message in following:
            if message.role != "tool":
                yield message
            elif answer is None or id(message) in stray:
                yield _in_words(message)


def _no_result(call: ToolCall) -> Message:
    return Message("tool", NO_RESULT, tool_call_id=call.id, tool_name=call.name, tool_call_error=True)


def _in_words(message: Message) -> Message:
    """A result without its call as a message of the user, with the text and the media of the result."""
    words = TextPart(
        f"(result of the tool {message.tool_name})" if message.tool_name else "(result of a tool)"
    )
    said = (replace(part, paragraph=True) if isinstance(part, TextPart) else part for part in message.parts)
    return Message("user", parts=[words, *said], from_history=True, cache=message.cache)
