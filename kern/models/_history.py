"""What all protocols need of earlier messages: what the model wants to see again, as servers take it.

Earlier messages come out of rows, which are data from outside: what does not fit is left out.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pydantic_core import from_json, to_json

from kern.errors import UsageError
from kern.messages import Media, Message, ToolCall
from kern.tools.result import mention

BROKEN_ARGUMENTS = "invalid_json"
"""The key under which arguments that are not a JSON object go back to the model that wrote them."""


def record_of(data: Mapping[str, Any] | None, provider: str, model: str) -> Mapping[str, Any] | None:
    """What `provider_data` holds for this protocol and this very model, or None."""
    record = data.get(provider) if isinstance(data, Mapping) else None
    if isinstance(record, Mapping) and record.get("model") == model:
        return record
    return None


def sound_arguments(call: ToolCall) -> str:
    """The arguments of an earlier call as a JSON object.

    vLLM, llama.cpp and others parse them while they build the prompt, and refuse a conversation that holds
    anything else. What the model wrote instead goes back as a text, so that it sees its mistake.
    """
    text = call.arguments
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
    """The arguments of an earlier call; what is no JSON object goes back as a text."""
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
    """Each answer with what follows it, up to the next."""
    answer: Message | None = None
    following: list[Message] = []
    for message in messages:
        if message.role == "assistant":
            if answer is not None or following:
                yield answer, following
            answer, following = message, []
        elif message.role in ("user", "tool"):
            following.append(message)
    yield answer, following


_FOREIGN = re.compile(r"[^A-Za-z0-9_-]")
_LONGEST_NAME = 64


def call_name(given: str) -> str:
    """The name of an earlier call as providers take it: OpenAI and others refuse a prompt with any other.

    A model may have made one up. The result of the call tells it that there is no such tool.
    """
    return shortened(_FOREIGN.sub("_", given), given, _LONGEST_NAME) or "unnamed"


def call_id(given: str | None, longest: int) -> str:
    """The id of a call, cut to what OpenAI takes; another provider's may be longer."""
    return shortened(given or "", given or "", longest)


def shortened(text: str, given: str, longest: int) -> str:
    """`text`, cut if it is too long, and then told from others by a hash of what was given."""
    if len(text) <= longest:
        return text
    return f"{text[: longest - 9]}-{hashlib.sha256(given.encode(errors='replace')).hexdigest()[:8]}"


def has_media(message: Message) -> bool:
    """Whether the message has anything that may have to be read from a file, or be put in base64."""
    return any(isinstance(part, Media) for part in message.parts)


def shown_media(
    message: Message,
    part_of: Callable[[Any], dict[str, Any]],
    left_out: Callable[[Media], bool] = lambda media: False,
) -> tuple[list[dict[str, Any]], list[str]]:
    """The message's media as parts, and a mention of each that this protocol cannot send.

    Args:
        message: The message; media of a new input have to be sendable, those of an earlier message may come
            from another provider, or from a row.
        part_of: Makes the part of one of them, or raises `UsageError`.
        left_out: Tells those that are none of both.
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
