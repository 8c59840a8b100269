"""What a run is asked, as messages and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import Any

import pydantic

from kern._json import jsonable
from kern.errors import UsageError
from kern.messages import MEDIA, ROLES, Message
from kern.runner.input_schema import Input, checked_input
from kern.runner.options import RunOptions
from kern.runtime.request import RunInput


def run_input(input: Input, schema: type[pydantic.BaseModel] | None, options: RunOptions) -> RunInput:
    """What a run begins with.

    Args:
        schema: The `input_schema` that the input has to fit.

    Raises:
        InputCheckError: It does not fit.
        UsageError: It is nothing that a run takes, or empty.
    """
    media_given = options.images or options.audio or options.videos or options.files
    if type(input) is str and schema is None and not media_given and input.strip():
        return RunInput(value=input, messages=[Message("user", input)])
    input = checked_input(schema, input)
    try:
        messages, value = _messages(input), as_json(input)
    except (ValueError, RecursionError) as error:  # too deep, numbers too long, a list that contains itself
        raise UsageError(f"the input cannot be written as JSON: {error}") from error
    last = messages[-1]
    media: dict[str, Any] = {
        name: [*getattr(last, name), *given] for name in MEDIA if (given := getattr(options, name))
    }
    if media:
        messages[-1] = replace(last, **media)
    if not any(message.content or any(getattr(message, name) for name in MEDIA) for message in messages):
        raise UsageError("the input is empty; pass a text, or messages")
    return RunInput(value=value, messages=messages)


def _messages(input: Input) -> list[Message]:
    if isinstance(input, Message):
        return [input]
    if isinstance(input, Sequence) and not isinstance(input, str) and input:
        items: Sequence[Any] = input
        if all(isinstance(item, Message) or is_message(item) for item in items):
            return [item if isinstance(item, Message) else Message.from_dict(item) for item in items]
        if all(isinstance(item, str) for item in items):
            return [Message("user", "\n".join(items))]
    return [Message("user", as_text(input))]


def is_message(item: Any) -> bool:
    """A message as most of the field writes one: a dict of a role and a text."""
    return (
        isinstance(item, Mapping)
        and item.get("role") in ROLES
        and isinstance(item.get("content"), str)
        and item.keys() <= {"role", "content", "name"}
    )


def as_text(input: Any) -> str:
    """The input as the model and the person read it."""
    if isinstance(input, str):
        return input if input.strip() else ""
    if isinstance(input, Message):
        return input.content or ""
    if isinstance(input, pydantic.BaseModel):
        return input.model_dump_json()
    if isinstance(input, Mapping | Sequence) and not isinstance(input, bytes | bytearray | memoryview):
        if input and not isinstance(input, Mapping) and all(isinstance(item, str) for item in input):
            return "\n".join(input)
        return json.dumps(as_json(input), ensure_ascii=False) if input else ""
    raise UsageError(
        f"input must be a str, list, dict, Message or pydantic model, not {type(input).__name__}"
    )


def as_json(input: Input) -> Any:
    """The input as JSON, as the run's output holds it."""
    if isinstance(input, str):
        return input
    if isinstance(input, Message):
        return _without_bytes(input)
    if isinstance(input, Sequence) and any(isinstance(item, Message) for item in input):
        return [_without_bytes(item) if isinstance(item, Message) else item for item in input]
    return jsonable(input)


def _without_bytes(message: Message) -> dict[str, Any]:
    """A message as JSON; what its media are called, and their hashes, in place of bytes and files."""
    data = message.to_dict({})
    for item in (item for name in MEDIA for item in data.get(name, ())):
        if path := item.pop("filepath", None):
            item.setdefault("name", PurePath(path).name)
    return data
