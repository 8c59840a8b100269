"""Structured answers: what one has to look like, how it is read from what a model wrote, and how it is shown
while it is being written.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

import pydantic
from pydantic import ValidationError
from pydantic.errors import PydanticUserError
from pydantic_core import from_json, to_json

from kern._json import non_finite
from kern.errors import RetryAgentRun, UsageError
from kern.messages import Message
from kern.models.base import ResponseFormat, ToolDefinition
from kern.runtime.audience import Out
from kern.runtime.outcome import Again, Answer, CallSite, ToolOutcome
from kern.runtime.run import Review, Run
from kern.runtime.sink import RunSink
from kern.tools.json_check import misfits
from kern.tools.result import without_tags
from kern.tools.schema import Schema, strict_schema, undo_strict

ANSWER_TOOL = "final_answer"
CHECK = "the check of the answer"

_FENCED = re.compile(r"```[\w-]*[ \t]*\n(.*?)```", re.DOTALL)
_BRACKET = re.compile(r"[{\[]")
_MOST_STARTS = 50
_MOST_ERRORS = 8
_STEP = 16
_GROWTH = 1.05


class BadAnswer(ValueError):
    """What a model wrote is not the JSON that was asked for; the text tells it why."""


class JsonForm:
    """What an answer, or a task, has to look like.

    Args:
        declared: A pydantic model class, or a JSON schema: bare, or wrapped as OpenAI's `response_format`.

    Raises:
        UsageError: It is neither.
    """

    __slots__ = ("_class", "_strict", "name", "schema", "type_name")

    def __init__(self, declared: type[pydantic.BaseModel] | Mapping[str, Any]) -> None:
        self.name: str
        self.type_name: str
        self._class: type[pydantic.BaseModel] | None = None
        if isinstance(declared, type) and issubclass(declared, pydantic.BaseModel):
            self._class, self.name, self.type_name = declared, declared.__name__, declared.__name__
            try:
                self.schema: Schema = declared.model_json_schema()
            except PydanticUserError as error:
                raise UsageError(f"output_schema: {declared.__name__} has no JSON schema: {error}") from error
        elif isinstance(declared, Mapping):
            self.name, self.schema = _unwrapped(declared)
            self.type_name = "dict"
        else:
            raise UsageError(
                f"output_schema takes a pydantic model class or a JSON schema as a dict, not {declared!r}"
            )
        try:
            self._strict: Schema | None = strict_schema(self.schema)
        except UsageError:  # an open object, say
            self._strict = None

    @property
    def is_object(self) -> bool:
        """Providers take it, and tools: the root is an object, not a list or a text."""
        return self._strict is not None or self.schema.get("type") == "object"

    def response_format(self) -> ResponseFormat:
        """The schema for a provider that enforces one: to the letter, where the strict dialect can say it."""
        return ResponseFormat(self.name, self._strict or self.schema, strict=self._strict is not None)

    def tool_definition(self) -> ToolDefinition:
        """The schema as a tool that gives the answer."""
        return ToolDefinition(
            ANSWER_TOOL,
            "Give the final answer. Call it once, by itself, when you have all that you need for it.",
            self._strict or self.schema,
            strict=self._strict is not None,
        )

    def read(self, text: str, *, enforced: bool = False) -> Answer:
        """The answer in what a model wrote: JSON, alone, in a code fence, or amid other words.

        Args:
            enforced: The provider was given `response_format` or `tool_definition`.

        Raises:
            BadAnswer: There is none, or there are several that differ.
        """
        failure: BadAnswer | None = None
        fitting: list[Answer] = []
        values, drafts = _values(text)
        for value in values:
            try:
                if (found := non_finite(value)) is not None:
                    raise BadAnswer(f"That is no JSON: {found} is no JSON number.")
                answer = self.validate(
                    undo_strict(value, self.schema) if enforced and self._strict else value
                )
            except BadAnswer as error:
                failure = failure or error
            else:
                if drafts:
                    return answer
                if all(answer.content != other.content for other in fitting):
                    fitting.append(answer)
        if len(fitting) > 1:  # nobody can tell the answer from an example, say
            raise BadAnswer(f"That holds {len(fitting)} different JSON values that fit the schema.")
        if fitting:
            return fitting[0]
        raise failure or BadAnswer("That is no JSON.")

    def validate(self, value: Any) -> Answer:
        """The answer that a JSON value, or an instance, is.

        Raises:
            BadAnswer: It does not fit.
        """
        if self._class is None:
            lines = misfits(value, self.schema)
            if not lines:
                return Answer(value, self.type_name)
        elif isinstance(value, self._class):
            return Answer(value, self.type_name)
        else:
            try:
                text = to_json(value, by_alias=True, inf_nan_mode="constants")
                return Answer(self._class.model_validate_json(text), self.type_name)
            except ValidationError as error:
                lines = [_line(detail) for detail in error.errors(include_url=False)]
            except ValueError as error:
                lines = [str(error)]
        if len(lines) > _MOST_ERRORS:
            lines = [*lines[:_MOST_ERRORS], f"and {len(lines) - _MOST_ERRORS} more"]
        raise BadAnswer("That does not fit the schema:\n" + "\n".join(f"- {line}" for line in lines))

    def made(self, value: Any) -> bool:
        """Whether a value that bears this form's name is the validated one, and not its JSON out of a row."""
        return self._class is None or isinstance(value, self._class)

    def so_far(self, text: str) -> Any:
        """What is there of an answer that is still being written; None if that does not fit."""
        start = min((at for at in (text.find("{"), text.find("[")) if at >= 0), default=-1)
        if start < 0:
            return None
        try:
            value = from_json(text[start:].removesuffix("```"), allow_partial="trailing-strings")
        except ValueError:
            return None
        return value if value and not misfits(value, self.schema, unfinished=True) else None

    def in_words(self) -> str:
        """The schema for a system message."""
        return (
            "<output_schema>\nAnswer with one JSON value that follows this JSON schema, and nothing else: "
            "no words before or after it, no code fence.\n"
            f"{without_tags(json.dumps(self.schema, ensure_ascii=False))}\n</output_schema>"
        )


_known: WeakKeyDictionary[type[pydantic.BaseModel], JsonForm] = WeakKeyDictionary()


def json_form(declared: type[pydantic.BaseModel] | Mapping[str, Any]) -> JsonForm:
    """The form that a parameter declares, computed once per class."""
    if not isinstance(declared, type):
        return JsonForm(declared)
    known = _known.get(declared)
    if known is None:
        known = _known[declared] = JsonForm(declared)
    return known


def _unwrapped(declared: Mapping[str, Any]) -> tuple[str, Schema]:
    """Name and schema. The wrapping is that of OpenAI's `response_format`:
    https://platform.openai.com/docs/api-reference/chat/create#chat-create-response_format
    """
    if declared.get("type") == "json_schema":
        inner = declared.get("json_schema", declared)
        if not isinstance(inner, Mapping) or not isinstance(inner.get("schema"), Mapping):
            raise UsageError("output_schema: a 'json_schema' holds the JSON schema under 'schema'")
        return str(inner.get("name", "answer")), dict(inner["schema"])
    if not declared.keys() & {"type", "properties", "$ref", "anyOf", "oneOf", "allOf", "enum", "const"}:
        raise UsageError("output_schema: this dict is no JSON schema; it needs 'type' and 'properties'")
    return re.sub(r"[^\w-]", "_", str(declared.get("title", "answer"))), dict(declared)


def _values(text: str) -> tuple[list[Any], bool]:
    """The different JSON values in a text, the last one first; and whether there is nothing else in it: then
    each is the draft of the one that follows.
    """
    try:
        return [from_json(text.strip())], True
    except ValueError:
        pass
    values, rest = _amid_words(text)
    if values and not rest.strip():
        return values[::-1], True
    _, thought, said = text.rpartition("</think>")
    found = _found(said)
    if not found and thought:
        found = _found(text)
    return list(found.values())[::-1], False


def _found(text: str) -> dict[str, Any]:
    """The values in code fences, and then all that begin with a bracket, by how they are written."""
    values = []
    for match in _FENCED.finditer(text):
        try:
            values.append(from_json(match[1].strip()))
        except ValueError:
            continue
    return {json.dumps(value, sort_keys=True): value for value in (*_amid_words(text)[0], *values)}


def _amid_words(text: str) -> tuple[list[Any], str]:
    """The values that begin with a bracket, and the words around them."""
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


# What the engine is given.


def reviewing(schema: JsonForm, *, enforced: bool) -> Review:
    """A review that takes nothing but a fitting answer, and tells the model why others are none."""

    async def review(run: Run, message: Message) -> Answer | Again:
        try:
            answer = schema.read(message.content or "", enforced=enforced)
        except BadAnswer as error:
            run.send_back(CHECK, str(error))
            return Again(f"{error}\nAnswer again, with the whole JSON.")
        return answer

    return review


class AnswerTool:
    """The tool by which a model answers that is better at calling tools than at writing JSON."""

    __slots__ = ("_schema", "definition")

    def __init__(self, schema: JsonForm) -> None:
        self._schema = schema
        self.definition: ToolDefinition = schema.tool_definition()

    async def run(self, run: Run, site: CallSite) -> ToolOutcome:
        """End the run with the arguments as its answer.

        Raises:
            RetryAgentRun: They do not fit.
        """
        try:
            answer = self._schema.read(site.call.arguments, enforced=True)
        except BadAnswer as error:
            raise RetryAgentRun(str(error)) from error
        run.out.answer(answer)
        return ToolOutcome("This is the answer.", answer=answer)


class GrowingSink(RunSink):
    """For JSON: the consumer gets what is there of the value, at most once for each read from the network.

    Each reading begins at the start of the text, so that one is only made when the text has grown by a part
    of itself: the work stays in proportion to the length.
    """

    __slots__ = ("_loop", "_next_at", "_parts", "_planned", "_schema", "_sent", "_size")

    def __init__(self, out: Out, schema: JsonForm) -> None:
        super().__init__(out)
        self._schema = schema
        self._parts: list[str] = []
        self._size = 0
        self._next_at = _STEP
        self._planned: asyncio.Handle | None = None
        self._sent: Any = None
        self._loop = asyncio.get_running_loop()

    def content(self, text: str) -> None:
        """A piece of the JSON."""
        self._out.text_begins()
        if not self._out.streams:
            return
        self._parts.append(text)
        self._size += len(text)
        if self._planned is None and self._size >= self._next_at:
            self._planned = self._loop.call_soon(self._send)  # once what has arrived is through

    def ended(self, message: Message) -> None:
        """What the model says before it calls is no JSON of the answer's."""
        if message.tool_calls and self._out.streams:
            self.commentary(message.content or "")

    def close(self) -> None:
        """The whole answer comes next."""
        if self._planned is not None:
            self._planned.cancel()

    def _send(self) -> None:
        self._planned = None
        self._parts = ["".join(self._parts)]
        self._next_at = max(self._size + _STEP, int(self._size * _GROWTH))
        if self.full:
            return
        value = self._schema.so_far(self._parts[0])
        if value is not None and value != self._sent:
            self._sent = value
            self._out.answer_so_far(value)
