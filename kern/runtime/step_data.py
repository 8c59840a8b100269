"""The results of steps as JSON and back: model responses, tool outcomes, errors, commits, requests."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

from pydantic_core import from_json

from kern import errors
from kern._error_text import message_of
from kern._json import json_bytes, jsonable
from kern.durable.journal import Entry
from kern.errors import KernError, ModelBehaviorError, ModelError, StateError, StoreError, UsageError
from kern.messages import Media, Message
from kern.models.base import ModelRequest, ModelResponse
from kern.runtime.outcome import ToolOutcome
from kern.runtime.stored_runs import UNREADABLE
from kern.state.shared_state import Author, Change
from kern.usage import Usage

Data = dict[str, Any]

CHANGE = "change"
"""The kind of an entry that is a commit to the session state."""

_LONGEST = 200
"""Longer call ids are replaced by their hashes."""
_LAST_MOMENT = 1e11
_SURELY_READABLE = 190
"""A depth of nesting that the JSON parser certainly accepts."""


def loads(entry: Entry, run_id: str = "") -> Data:
    """Parse the data of an entry.

    Args:
        entry: The entry.
        run_id: The id of the run, for errors, if the key of the entry does not include it.

    Raises:
        StoreError: The data is not a JSON object.
    """
    key = f"{run_id}/{entry.key}" if run_id else entry.key
    try:
        data = from_json(entry.data)
    except ValueError as error:
        raise StoreError(f"the recorded step {key} cannot be read: {error}") from error
    if not isinstance(data, dict):
        raise StoreError(f"the recorded step {key} cannot be read: it is not a JSON object")
    return data


def call_key(run_id: str, kind: str, call_id: str) -> str:
    """Return the key of a tool call's step: a text that every database accepts, for any id of a provider."""
    # The id as the recorded response has it, where half of a surrogate pair is U+FFFD.
    stored: str = call_id if call_id.isascii() else from_json(json_bytes(call_id))
    name = stored.encode("unicode_escape").decode()
    if len(name) > _LONGEST:
        name = f"sha256:{hashlib.sha256(name.encode()).hexdigest()}"
    return f"{run_id}/{kind}/{name}"


def written(data: Data, what: str) -> bytes:
    """Write the data of a step as JSON that can be read again.

    Args:
        data: The data.
        what: What it is, for errors.

    Raises:
        UsageError: The data is nested so deeply that it could not be read back.
    """
    text = json_bytes(data)
    if text.count(b"{") + text.count(b"[") > _SURELY_READABLE:
        try:
            from_json(text)
        except ValueError as error:
            raise UsageError(
                f"{what} is nested too deeply for a journal ({error}); use a flatter value"
            ) from error
    return text


@contextmanager
def reading(key: str) -> Iterator[None]:
    """Wrap the reading of a recorded step, whose JSON may be damaged.

    Raises:
        StoreError: The step cannot be read.
    """
    try:
        yield
    except (*UNREADABLE, StateError) as error:
        raise StoreError(
            f"the recorded step {key} cannot be read; it is damaged, or a newer version of Kern wrote it: "
            f"{type(error).__name__}: {error}"
        ) from error


def moment(value: Any) -> float:
    """Read a recorded time, in seconds since the epoch.

    Raises:
        ValueError: The value is not a time.
    """
    seconds = float(value)
    if not 0.0 <= seconds < _LAST_MOMENT:
        raise ValueError(f"{value!r} is not a time")
    return seconds


def response_data(response: ModelResponse) -> Data:
    """Turn a model response into data."""
    data: Data = {"message": response.message.to_dict(), "usage": response.usage.to_dict()}
    for field in fields(response):
        value = getattr(response, field.name)
        if field.name not in data and value is not None:
            data[field.name] = value
    return data


def response_from(data: Mapping[str, Any]) -> ModelResponse:
    """Undo `response_data`."""
    plain = {f.name: data[f.name] for f in fields(ModelResponse) if f.name in data}
    plain["message"], plain["usage"] = Message.from_dict(data["message"]), Usage.from_dict(data["usage"])
    return ModelResponse(**plain)


def outcome_data(outcome: ToolOutcome) -> Data:
    """Turn the outcome of a tool call into data, with the bytes of its media next to it."""
    shelf: dict[str, bytes] = {}
    data = outcome.to_dict(shelf)
    return {"outcome": data, **media_data(shelf)}


def outcome_from(data: Mapping[str, Any]) -> ToolOutcome:
    """Undo `outcome_data`."""
    outcome = ToolOutcome.from_dict(data["outcome"])
    fill(outcome.media, data)
    return outcome


def messages_data(messages: Iterable[Message]) -> Data:
    """Turn messages into data, with the bytes of their media next to them."""
    shelf: dict[str, bytes] = {}
    return {"messages": [message.to_dict(shelf) for message in messages], **media_data(shelf)}


def messages_from(data: Mapping[str, Any]) -> list[Message]:
    """Undo `messages_data`."""
    messages = [Message.from_dict(item) for item in data["messages"]]
    fill([media for message in messages for media in message.media], data)
    return messages


def media_data(shelf: Mapping[str, bytes]) -> Data:
    """Turn the bytes of media into data, by their hashes."""
    if not shelf:
        return {}
    return {"media": {name: base64.b64encode(content).decode() for name, content in shelf.items()}}


def fill(media: Any, data: Mapping[str, Any]) -> None:
    """Give media the bytes that `media_data` stored."""
    kept = data.get("media", {})
    item: Media
    for item in media:
        if item.content is None and item.sha256 in kept:
            item.content = base64.b64decode(kept[item.sha256])


def error_data(error: KernError) -> Data:
    """Turn the error of a step into data."""
    attributes: Data = {}
    for name, value in vars(error).items():
        if name == "run_output" or name.startswith("_"):
            continue
        if isinstance(value, Usage):
            value = value.to_dict()
        try:
            attributes[name] = jsonable(value)
        except ValueError:
            continue  # such a value does not influence the run
    return {"type": type(error).__name__, "message": message_of(error), "attributes": attributes}


def error_from(data: Mapping[str, Any]) -> KernError:
    """Undo `error_data`. An error of an unknown class becomes a `KernError`."""
    kind = getattr(errors, data["type"], KernError)
    if not (isinstance(kind, type) and issubclass(kind, KernError)):
        kind = KernError
    error: KernError = kind.__new__(kind, data["message"])
    error.args = (data["message"],)
    vars(error).update(data.get("attributes", {}))
    usage = getattr(error, "usage", None)
    if isinstance(error, ModelError | ModelBehaviorError) and isinstance(usage, dict):
        error.usage = Usage.from_dict(usage)
    return error


def change_entry(index: int, change: Change) -> Entry:
    """Make the entry of a commit to the session state."""
    author = change.author
    data: Data = {
        "at": change.created_at,
        "patch": change.patch,
        "run_id": author.run_id,
        "agent_path": list(author.agent_path),
        "tool": author.tool,
        "tool_call_id": author.tool_call_id,
    }
    return Entry(f"change/{index}", CHANGE, json_bytes(data))


def change_from(entry: Entry, run_id: str = "") -> Change:
    """Undo `change_entry`. The revision is 0: it is set when the change is committed."""
    data = loads(entry, run_id)
    with reading(f"{run_id}/{entry.key}"):
        texts = (data["run_id"], data["tool"], data["tool_call_id"], *data["agent_path"])
        if not isinstance(data["patch"], list) or not all(isinstance(text, str | None) for text in texts):
            raise TypeError("it is not a commit")
        author = Author(data["run_id"], tuple(data["agent_path"]), data["tool"], data["tool_call_id"])
        return Change(0, data["patch"], author, moment(data["at"]))


def request_data(request: ModelRequest) -> Data:
    """Turn a model request into the data that a replay compares: without times and bytes of media."""
    data: Data = {
        "messages": [_asked(message) for message in request.messages],
        "tools": [
            {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
            for tool in request.tools
        ],
    }
    if request.server_tools:
        data["server_tools"] = [{"name": tool.name, **tool.definition()} for tool in request.server_tools]
    if request.tool_choice is not None:
        data["tool_choice"] = request.tool_choice
    if request.response_format is not None:
        data["response_format"] = {
            "name": request.response_format.name,
            "schema": request.response_format.schema,
        }
    plain: Data = from_json(json_bytes(data))
    return plain


def _asked(message: Message) -> Data:
    data: Data = {"role": message.role}
    if message.content is not None:
        data["content"] = message.content
    if message.tool_calls:
        data["tool_calls"] = [
            {"id": c.id, "name": c.name, "arguments": c.arguments} for c in message.tool_calls
        ]
    if message.tool_call_id is not None:
        data["tool_call_id"] = message.tool_call_id
    if media := message.media:
        data["media"] = [media_name(item) for item in media]
    return data


def media_name(media: Media) -> Data:
    """Describe media by its hash instead of its bytes."""
    return {"type": type(media).__name__.lower(), **media.to_dict({})}
