"""The schema of a structured answer, and how an answer is read from the text of a model."""

from __future__ import annotations

import json
import re
import typing
from collections.abc import Hashable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, NewType
from weakref import WeakKeyDictionary

import pydantic
from pydantic import ValidationError
from pydantic.errors import PydanticUserError
from pydantic_core import from_json, to_json
from typing_extensions import TypeAliasType

from kern._error_text import raised_by
from kern._json import UNREAL, jsonable, non_finite, unreal
from kern.errors import AgentSignal, KernError, UsageError
from kern.messages import Message
from kern.models.base import ResponseFormat, ToolDefinition
from kern.runtime.out import Answer
from kern.tools.json_check import TYPE_NAMES, misfits, unknown_types
from kern.tools.result import without_tags
from kern.tools.schema import Schema, strict_schema, undo_strict

ANSWER_TOOL = "final_answer"

_KEY = "value"
_DEFINITIONS = ("$defs", "definitions")
_FENCED = re.compile(r"```[\w-]*[ \t]*\n(.*?)```", re.DOTALL)
_TYPES: tuple[Any, ...] = (type, TypeAliasType, getattr(typing, "TypeAliasType", TypeAliasType), NewType)
"""What types are instances of. A `type` statement of Python 3.12 makes another class than the backport."""
_BRACKET = re.compile(r"[{\[]")
_MOST_STARTS = 50
_MOST_ERRORS = 8


class BadAnswer(ValueError):
    """The text of a model is not the JSON that was asked for. The message is for the model."""


class AnswerSchema:
    """The schema of an answer, or of a task.

    A value that is not a JSON object is wrapped in one, `{"value": ...}`: providers and tools accept only
    objects.

    Args:
        declared: A JSON schema, bare or wrapped as in OpenAI's `response_format`; or a type for pydantic's
            `TypeAdapter`: a model class, a dataclass, a TypedDict, `list[A]`, `A | B`, `Literal["a"]`, int...

    Raises:
        UsageError: `declared` is neither.
    """

    __slots__ = ("_adapter", "_class", "_shown", "_strict", "_wrapped", "name", "schema", "type_name")

    def __init__(self, declared: Any) -> None:
        self.name: str
        self.type_name: str
        self.schema: Schema
        self._class: type | None = None
        self._adapter: pydantic.TypeAdapter[Any] | None = None
        if isinstance(declared, Mapping):
            self.name, self.schema = _unwrapped(declared)
            for wrong in unknown_types(self.schema):
                raise UsageError(f"output_schema: {wrong!r} is no type of JSON schema: {TYPE_NAMES}")
            self.type_name = "dict"
        else:
            self.type_name = _called(declared)
            self.name = re.sub(r"[^\w-]+", "_", self.type_name).strip("_")[:64]
            self._adapter, self.schema = _adapted(declared, self.type_name)
            self._class = declared if _has_instances(declared) else None
        self._shown: Schema = self.schema
        self._strict: Schema | None = _in_strict(self.schema)
        self._wrapped = self._strict is None and self.schema.get("type") != "object"
        if self._wrapped:
            self._shown = _in_object(self.schema)
            self._strict = _in_strict(self._shown)

    def response_format(self) -> ResponseFormat:
        """Return the schema for a provider that enforces it, in the strict dialect if possible."""
        return ResponseFormat(self.name, self._strict or self._shown, strict=self._strict is not None)

    def tool_definition(self) -> ToolDefinition:
        """Return the schema as the definition of a tool whose arguments are the answer."""
        return ToolDefinition(
            ANSWER_TOOL,
            "Give the final answer. Call it once, by itself, when you have all that you need for it.",
            self._strict or self._shown,
            strict=self._strict is not None,
        )

    def read(self, text: str, *, enforced: bool = False) -> Answer:
        """Find the answer in the text of a model: JSON, alone, in a code fence, or between other text.

        Args:
            text: The text.
            enforced: The provider got `response_format` or `tool_definition`.

        Raises:
            BadAnswer: There is no answer, or there are several different ones.
        """
        failure: BadAnswer | None = None
        fitting: list[Answer] = []
        values, drafts = _values(text)
        for value in values:
            try:
                if (found := non_finite(value)) is not None:
                    raise BadAnswer(f"That is not JSON: {found} is not a JSON number.")
                if enforced and self._strict:
                    value = undo_strict(value, self._shown)
                answer = self._fitting(value)
            except BadAnswer as error:
                failure = failure or error
            else:
                if drafts:
                    return answer
                if all(answer.content != other.content for other in fitting):
                    fitting.append(answer)
        if len(fitting) > 1:  # one may be an example, and nothing says which
            raise BadAnswer(f"That holds {len(fitting)} different JSON values that fit the schema.")
        if fitting:
            return fitting[0]
        raise failure or BadAnswer("That is not JSON.")

    def _fitting(self, value: Any) -> Answer:
        """Validate a JSON value, with or without the object that wraps it."""
        if self._wrapped and isinstance(value, dict) and value.keys() == {_KEY}:
            return self.validate(value[_KEY])
        return self.validate(value)

    def validate(self, value: Any) -> Answer:
        """Validate a JSON value, or an instance, and return it as an answer.

        Raises:
            BadAnswer: The value does not fit.
        """
        if self._adapter is None:
            lines = misfits(value, self.schema)
            if not lines:
                return Answer(value, self.type_name)
        elif self._class is not None and isinstance(value, self._class):
            return Answer(value, self.type_name)
        else:
            try:
                text = to_json(value, by_alias=True, inf_nan_mode="constants")
                made = self._storable(self._adapter.validate_json(text))
                if UNREAL.search(text.decode()) is None or (found := unreal(made)) is None:
                    return Answer(made, self.type_name)
                lines = [f"{found} is not a JSON number"]
            except ValidationError as error:
                lines = [_line(detail) for detail in error.errors(include_url=False)]
            except ValueError as error:
                lines = [str(error)]
            except (KernError, AgentSignal):
                raise
            except Exception as error:
                raise UsageError(f"output_schema {self.type_name}: {raised_by(error)}") from error
        if len(lines) > _MOST_ERRORS:
            lines = [*lines[:_MOST_ERRORS], f"and {len(lines) - _MOST_ERRORS} more"]
        raise BadAnswer("That does not fit the schema:\n" + "\n".join(f"- {line}" for line in lines))

    def _storable(self, made: Any) -> Any:
        """Check that a value that a validator may have changed is JSON.

        Raises:
            UsageError: It is not, so no run could be stored with it.
        """
        try:
            jsonable(made)
        except (ValueError, RecursionError) as error:
            raise UsageError(
                f"output_schema {self.type_name}: what it made of the answer cannot be written as JSON, "
                f"so it cannot be stored: {error}"
            ) from error
        return made

    def recorded(self, content: Any, messages: Iterable[Message]) -> Answer:
        """Make the answer from its JSON on record, as it was when the model gave it.

        What validators make of a value is not always valid itself, and its JSON leaves out secrets and
        excluded fields. So the text of the model is read once more, if it is among the messages.

        Args:
            content: The JSON of the answer.
            messages: The messages of the run, oldest first.

        Raises:
            BadAnswer: The JSON does not fit.
        """
        for text in _answers_in(messages):
            for enforced in (True, False):
                try:
                    answer = self.read(text, enforced=enforced)
                except BadAnswer:
                    continue
                if jsonable(answer.content) == content:
                    return answer
        return self.validate(content)

    def made(self, value: Any) -> bool:
        """Whether a value is the validated one, not its JSON from a stored row."""
        if self._adapter is None:
            return True
        if self._class is not None:
            return isinstance(value, self._class)
        try:
            self._adapter.validate_python(value, strict=True)
        except ValidationError:
            return False
        return True

    def so_far(self, text: str) -> Any:
        """Parse the beginning of an answer that is still being written; None if it does not fit."""
        start = min((at for at in (text.find("{"), text.find("[")) if at >= 0), default=-1)
        if start < 0:
            return None
        try:
            value = from_json(text[start:].removesuffix("```"), allow_partial="trailing-strings")
        except ValueError:
            return None
        if self._wrapped and isinstance(value, dict) and value.keys() <= {_KEY}:
            value = value.get(_KEY)
        return value if value and not misfits(value, self.schema, unfinished=True) else None

    def in_words(self) -> str:
        """Return the schema as instructions for a system message."""
        return (
            "<output_schema>\nAnswer with one JSON value that follows this JSON schema, and nothing else: "
            "no words before or after it, no code fence.\n"
            f"{without_tags(json.dumps(self._shown, ensure_ascii=False))}\n</output_schema>"
        )


_known: WeakKeyDictionary[Any, AnswerSchema] = WeakKeyDictionary()


def answer_schema(declared: Any) -> AnswerSchema:
    """Return the schema that a parameter declares, made once per type.

    Raises:
        UsageError: `declared` is neither a type nor a JSON schema.
    """
    if isinstance(declared, Mapping) or not _is_type(declared):
        return AnswerSchema(declared)
    try:
        known = _known.get(declared)
    except TypeError:  # a union cannot be weakly referenced
        return _form_of_union(declared) if isinstance(declared, Hashable) else AnswerSchema(declared)
    if known is None:
        known = _known[declared] = AnswerSchema(declared)
    return known


@lru_cache(maxsize=64)
def _form_of_union(declared: Any) -> AnswerSchema:
    return AnswerSchema(declared)


def _adapted(declared: Any, name: str) -> tuple[pydantic.TypeAdapter[Any], Schema]:
    if not _is_type(declared):
        raise UsageError(
            "output_schema must be a type, such as a pydantic model class, or a JSON schema as a "
            f"dict, not {declared!r}"
        )
    try:
        adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(declared)
        return adapter, adapter.json_schema()
    except (PydanticUserError, NameError) as error:
        raise UsageError(f"output_schema: {name} has no JSON schema: {error}") from error


def _answers_in(messages: Iterable[Message]) -> Iterator[str]:
    """The texts in which a model may have given its answer, the newest first."""
    for message in reversed([message for message in messages if message.role == "assistant"]):
        yield from (call.arguments for call in message.tool_calls if call.name == ANSWER_TOOL)
        if message.content:
            yield message.content


def _has_instances(declared: Any) -> bool:
    """Whether `isinstance` works with it: not so with a TypedDict, a generic type or `Any`."""
    try:
        isinstance(None, declared)
    except TypeError:
        return False
    return isinstance(declared, type)


def _is_type(declared: Any) -> bool:
    return isinstance(declared, _TYPES) or typing.get_origin(declared) is not None


def _called(declared: Any) -> str:
    """Return the name of a type as people write it, without modules."""
    if isinstance(declared, type) and typing.get_origin(declared) is None:
        return declared.__name__
    return re.sub(r"(?:[\w<>]+\.)+", "", repr(declared))


def _in_strict(schema: Schema) -> Schema | None:
    try:
        return strict_schema(schema)
    except UsageError:  # such as an object with additional properties
        return None


def _in_object(schema: Schema) -> Schema:
    """Return the schema of an object whose only property is the value."""
    inner = {key: value for key, value in schema.items() if key not in _DEFINITIONS}
    outer = {key: schema[key] for key in _DEFINITIONS if key in schema}
    return {
        "type": "object",
        "properties": {_KEY: inner},
        "required": [_KEY],
        "additionalProperties": False,
        **outer,
    }


def _unwrapped(declared: Mapping[str, Any]) -> tuple[str, Schema]:
    """Return name and schema. The wrapping is that of OpenAI's `response_format`:
    https://platform.openai.com/docs/api-reference/chat/create#chat-create-response_format
    """
    if declared.get("type") == "json_schema":
        inner = declared.get("json_schema", declared)
        if not isinstance(inner, Mapping) or not isinstance(inner.get("schema"), Mapping):
            raise UsageError(
                "output_schema: a dict of type 'json_schema' must hold the JSON schema under 'schema'"
            )
        return str(inner.get("name", "answer")), dict(inner["schema"])
    if not declared.keys() & {"type", "properties", "$ref", "anyOf", "oneOf", "allOf", "enum", "const"}:
        raise UsageError(
            "output_schema: the dict is not a JSON schema of an object; it needs 'type' and 'properties'"
        )
    return re.sub(r"[^\w-]", "_", str(declared.get("title", "answer"))), dict(declared)


def _values(text: str) -> tuple[list[Any], bool]:
    """Return the JSON values in a text, the last one first, and whether there is no other text: then each is
    a draft of the next one.
    """
    try:
        return [from_json(text.strip())], True
    except ValueError:
        pass
    values, rest = _values_in_text(text)
    if values and not rest.strip():
        return values[::-1], True
    _, thought, said = text.rpartition("</think>")
    found = _found(said)
    if not found and thought:
        found = _found(text)
    return list(found.values())[::-1], False


def _found(text: str) -> dict[str, Any]:
    """Return the values that begin with a bracket, then those in code fences, by their canonical JSON."""
    values = []
    for match in _FENCED.finditer(text):
        try:
            values.append(from_json(match[1].strip()))
        except ValueError:
            continue
    return {json.dumps(value, sort_keys=True): value for value in (*_values_in_text(text)[0], *values)}


def _values_in_text(text: str) -> tuple[list[Any], str]:
    """Return the values that begin with a bracket, and the text around them."""
    decoder, at = json.JSONDecoder(), 0
    values: list[Any] = []
    words = ""
    for _ in range(_MOST_STARTS):
        found = _BRACKET.search(text, at)
        if found is None:
            break
        words += text[at : found.start()]
        try:
            value, at = decoder.raw_decode(text, found.start())
        except (ValueError, RecursionError):
            at = found.start() + 1
            words += found[0]
            continue
        values.append(value)
    return values, words + text[at:]


def _line(detail: Mapping[str, Any]) -> str:
    where = "/".join(str(part) for part in detail["loc"])
    return f"/{where}: {detail['msg']}"
