"""The input and the keywords of one run, checked before the run begins."""

from __future__ import annotations

import copy
import json
import re
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import PurePath
from typing import Any, TypedDict, get_args

import pydantic
from pydantic_core import from_json, to_json

from kern import _numbers
from kern._ids import check_given_id
from kern._json import encodable, jsonable, order_sets, whole
from kern._keywords import check_keywords
from kern.budget import Limits, check_limits
from kern.durable.journal import Journal
from kern.errors import UsageError
from kern.messages import MEDIA, ROLES, Audio, File, Image, Message, Video
from kern.run.requirement import RunRequirement
from kern.runner.input_schema import Input, checked_input, whole_message
from kern.runner.schema_types import OutputSchema
from kern.runtime.request import OnDuplicate, RunInput


class Keywords(TypedDict, total=False):
    """The keywords of all runs, for type checkers; `RunOptions` says what they mean."""

    user_id: str | None
    dependencies: Mapping[str, Any] | None
    timeout: float | None
    usage_limits: Limits | None
    debug_mode: bool | None
    journal: Journal | None


class SchemaKeyword(TypedDict, total=False):
    """The keyword that decides the type of the answer."""

    output_schema: OutputSchema | None


class AnyRunKeywords(Keywords, total=False):
    """The keywords of new and of continued runs."""

    stream_events: bool | None
    run_id: str | None


class NewKeywords(Keywords, total=False):
    """The keywords of new runs, one or many."""

    session_state: Mapping[str, Any] | pydantic.BaseModel | None
    images: Sequence[Image] | None
    audio: Sequence[Audio] | None
    videos: Sequence[Video] | None
    files: Sequence[File] | None
    add_history_to_context: bool | None
    add_session_state_to_context: bool | None
    add_dependencies_to_context: bool | None
    metadata: Mapping[str, Any] | None


class MapKeywords(NewKeywords, SchemaKeyword, total=False):
    """The keywords of many runs at once."""


class PlainKeywords(AnyRunKeywords, NewKeywords, total=False):
    """The keywords of a new run, without `output_schema`."""

    session_id: str | None
    on_duplicate: OnDuplicate | None


class RunKeywords(PlainKeywords, SchemaKeyword, total=False):
    """The keywords of a new run."""


class ContinueKeywords(AnyRunKeywords, SchemaKeyword, total=False):
    """The keywords of `continue_run`, without the run's output."""

    requirements: Sequence[RunRequirement] | None


@dataclass(slots=True, frozen=True, kw_only=True)
class RunOptions:
    """The keywords of a run. None means the constructor's value.

    Args:
        stream_events: With `stream=True`: yield every event of the run and of the runs below it, not only the
            text of the answer.
        session_id: The session to use. None: the default session of this agent or team and user.
        session_state: Merged into the stored state: dicts are merged deeply, other values are replaced. With
            a typed state also an instance of it: the fields that were set or differ from their defaults.
        user_id: The owner of the session.
        run_id: An id of your own for the run. A stored run with this id is looked up first.
        on_duplicate: What to do if `run_id` is taken. "raise": raise `RunConflictError`. "return": return the
            stored output, or wait for the run if it is in progress in this process. "retry_failed": run again
            if that run failed or was cancelled. A paused run raises. None: "raise", or "return" with a
            journal, which also returns the output of a paused run.
        images, audio, videos, files: Media to send with the input.
        dependencies: Values for `{templates}` and for `run_context.dependencies`.
        metadata: Values to store with the run.
        output_schema: The schema of the answer, in place of the constructor's; see `Agent`.
        timeout: How many seconds the run may take; then it ends with `RunDeadlineExceeded`.
        usage_limits: What the run and all runs below it may use; a run that needs more ends with
            `UsageLimitExceeded`. `UsageLimits` apply to each run, a `UsageBudget` is shared by runs.
        debug_mode: Log the prompts and tool calls of this run.
        journal: Where the steps of this run are stored; see `DbJournal`.
    """

    stream_events: bool | None = None
    session_id: str | None = None
    session_state: Mapping[str, Any] | pydantic.BaseModel | None = None
    user_id: str | None = None
    run_id: str | None = None
    on_duplicate: OnDuplicate | None = None
    images: Sequence[Image] | None = None
    audio: Sequence[Audio] | None = None
    videos: Sequence[Video] | None = None
    files: Sequence[File] | None = None
    add_history_to_context: bool | None = None
    add_session_state_to_context: bool | None = None
    add_dependencies_to_context: bool | None = None
    dependencies: Mapping[str, Any] | None = None
    metadata: Mapping[str, Any] | None = None
    output_schema: OutputSchema | None = None
    timeout: float | None = None
    usage_limits: Limits | None = None
    debug_mode: bool | None = None
    journal: Journal | None = None

    @property
    def leaves_the_spec(self) -> bool:
        """Whether the spec that was compiled from the constructor's values can be used as it is."""
        return (
            self.output_schema is None
            and self.add_history_to_context is None
            and self.add_session_state_to_context is None
            and self.add_dependencies_to_context is None
        )

    @classmethod
    def of(cls, keywords: RunKeywords) -> RunOptions:
        """Check the keywords that a program passed to a run.

        Raises:
            TypeError: A keyword is unknown.
            UsageError: A value is invalid.
        """
        if not keywords.keys() <= _NAMES:
            check_keywords("a run", keywords, _NAMES)
        for name, value in keywords.items():
            if value is not None and name in _RUN_CHECKS:
                _RUN_CHECKS[name](name, value)
        if keywords.get("on_duplicate") is not None:
            _check_on_duplicate(keywords)
        return cls(**keywords)


_NAMES = RunOptions.__dataclass_fields__.keys()

NO_OPTIONS = RunOptions()


def run_input(input: Input, schema: type[pydantic.BaseModel] | None, options: RunOptions) -> RunInput:
    """Turn the input of a run into messages, with the media of `options`.

    Args:
        schema: The `input_schema` that the input must fit; None: any input.

    Raises:
        InputCheckError: The input does not fit `schema`.
        UsageError: The input is empty, or of an unsupported type.
    """
    media_given = options.images or options.audio or options.videos or options.files
    if type(input) is str and schema is None and not media_given and input.strip():
        if not input.isascii():
            input = whole(input)
        return RunInput(value=input, messages=[Message("user", input)])
    input = checked_input(schema, input)
    try:
        messages, value = [whole_message(message) for message in _messages(input)], encodable(as_json(input))
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
        if wrong := [item for item in items if _looks_like_message(item) and not is_message(item)]:
            raise UsageError(
                f"the input holds {reprlib.repr(dict(wrong[0]))}, which looks like a message and is none: a "
                f"message is a Message, or a dict with a role ({', '.join(ROLES)}), a text as content, and a "
                "name at most; to send data with such keys, pass it as a JSON text"
            )
        if all(isinstance(item, str) for item in items):
            return [Message("user", "\n".join(items))]
    return [Message("user", as_text(input))]


def is_message(item: Any) -> bool:
    """Whether `item` is a message as most libraries write it: a dict with a role and a text."""
    return (
        isinstance(item, Mapping)
        and item.get("role") in ROLES
        and isinstance(item.get("content"), str)
        and item.keys() <= {"role", "content", "name"}
    )


def _looks_like_message(item: Any) -> bool:
    """Whether `item` is a dict with a role of a conversation, perhaps misspelt, and with another key that
    messages of most libraries have.
    """
    if not isinstance(item, Mapping) or not item.keys() & _OF_MESSAGES:
        return False
    role = item.get("role")
    return isinstance(role, str) and bool(get_close_matches(role, _ROLES, 1, 0.7))


_OF_MESSAGES = frozenset(("content", "contents", "contnet", "text", "parts", "message", "tool_calls"))
_ROLES = (*ROLES, "model", "human", "ai")


def as_text(input: Any) -> str:
    """Return the input as text, for the model and for people."""
    if isinstance(input, str):
        return input if input.strip() else ""
    if isinstance(input, Message):
        return input.content or ""
    if isinstance(input, pydantic.BaseModel):
        text = input.model_dump_json()
        tree = from_json(text) if "[" in text else None
        ordered = None if tree is None else order_sets(copy.deepcopy(tree), input)
        return text if ordered == tree else to_json(ordered).decode()
    if isinstance(input, Mapping | Sequence) and not isinstance(input, bytes | bytearray | memoryview):
        if input and not isinstance(input, Mapping) and all(isinstance(item, str) for item in input):
            return "\n".join(input)
        return json.dumps(as_json(input), ensure_ascii=False) if input else ""
    raise UsageError(
        f"input must be a str, list, dict, Message or pydantic model, not {type(input).__name__}"
    )


def as_json(input: Input) -> Any:
    """Return the input as JSON, for the output of the run."""
    if isinstance(input, str):
        return input
    if isinstance(input, Message):
        return _without_bytes(input)
    if isinstance(input, Sequence) and any(isinstance(item, Message) for item in input):
        return [_without_bytes(item) if isinstance(item, Message) else item for item in input]
    return order_sets(jsonable(input), input)


def _without_bytes(message: Message) -> dict[str, Any]:
    """Return a message as JSON, with the names and hashes of its media in place of bytes and paths."""
    data = message.to_dict({})
    for item in (item for name in MEDIA for item in data.get(name, ())):
        if path := item.pop("filepath", None):
            item.setdefault("name", PurePath(path).name)
    return data


_ON_DUPLICATE = get_args(OnDuplicate)


def _check_on_duplicate(given: Mapping[str, Any]) -> None:
    on_duplicate = given["on_duplicate"]
    if on_duplicate not in _ON_DUPLICATE:
        raise UsageError(f"on_duplicate must be one of {', '.join(_ON_DUPLICATE)}, not {on_duplicate!r}")
    if on_duplicate != "raise" and given.get("run_id") is None:
        raise UsageError(f"on_duplicate={on_duplicate!r} has no effect without a run_id: pass one")


def needs_stream(stream_events: bool | None, yield_run_output: bool) -> None:
    """Check that a run without a stream has no options of a stream.

    Raises:
        UsageError: It has one.
    """
    if stream_events or yield_run_output:
        raise UsageError("stream_events and yield_run_output have no effect without stream=True")


def check_seconds(name: str, given: Any) -> None:
    """Check that a time is None, or a number of seconds above 0.

    Raises:
        UsageError: It is neither.
    """
    if given is not None:
        _numbers.check_seconds(name, given)


def check_id(name: str, value: Any) -> None:
    """Check that an id is None, or a str that every database can use as a key.

    Raises:
        UsageError: It is neither.
    """
    if value is not None and not (type(value) is str and _USUAL_ID.fullmatch(value)):
        check_given_id(name, value)


_USUAL_ID = re.compile(r"[\w.:/@ -]{1,200}", re.ASCII)


def _check_dependencies(name: str, given: Any) -> None:
    if not isinstance(given, Mapping):
        raise UsageError(f"{name} must be a dict, not {type(given).__name__}")


_OF_JOURNALS = [verb for verb, item in vars(Journal).items() if verb[0] != "_" and callable(item)]


def check_journal(name: str, given: Any) -> None:
    """Check that a journal is None or one.

    Raises:
        UsageError: It is neither.
    """
    if given is not None and not all(callable(getattr(given, verb, None)) for verb in _OF_JOURNALS):
        raise UsageError(f"{name} must be a journal such as DbJournal(db), not {given!r}")


def _check_metadata(name: str, given: Any) -> None:
    if not isinstance(given, Mapping):
        raise UsageError(f"{name} must be a dict, not {type(given).__name__}")
    try:
        jsonable(dict(given))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{name} is stored with the run and must be JSON: {error}") from error


def _check_media(name: str, given: Any) -> None:
    kind = MEDIA[name]
    if not isinstance(given, Sequence) or not all(isinstance(item, kind) for item in given):
        raise UsageError(f"{name} must be a list of {kind.__name__}(url=... | content=... | filepath=...)")


OWN_CHECKS: Mapping[str, Callable[[str, Any], None]] = {
    "session_id": check_id,
    "user_id": check_id,
    "timeout": check_seconds,
    "usage_limits": check_limits,
    "dependencies": _check_dependencies,
    "metadata": _check_metadata,
}
"""The checks of the parameters that a constructor and a run have in common."""

_RUN_CHECKS: Mapping[str, Callable[[str, Any], None]] = {
    **OWN_CHECKS,
    "run_id": check_id,
    "journal": check_journal,
    **dict.fromkeys(MEDIA, _check_media),
}
