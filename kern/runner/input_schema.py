"""`input_schema`: checks the input before a run, and a team member's task when its run begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

import pydantic
from pydantic import ValidationError

from kern._error_text import raised_by
from kern._json import whole
from kern.errors import InputCheckError, KernError, UsageError
from kern.messages import Message, TextPart
from kern.runtime.answer_schema import AnswerSchema, BadAnswer, answer_schema
from kern.runtime.run_tree import Run, RunnerSpec

Input: TypeAlias = "str | Sequence[Any] | Mapping[str, Any] | Message | pydantic.BaseModel"


def checked_input(schema: type[pydantic.BaseModel] | None, given: Input) -> Input:
    """Return the input as an instance of `schema`, or unchanged if there is no schema.

    Raises:
        InputCheckError: A dict or JSON text does not fit the schema; the message says where.
        UsageError: The input is of a type that can never fit, such as a `Message`.
    """
    if schema is None or isinstance(given, schema):
        return given
    if isinstance(given, pydantic.BaseModel):
        raise UsageError(f"the input is a {type(given).__name__}, but input_schema is {schema.__name__}")
    try:
        if isinstance(given, str):
            return schema.model_validate_json(given)
        if isinstance(given, Mapping):
            return schema.model_validate(given)
    except ValidationError as error:
        lines = [
            f"/{'/'.join(map(str, detail['loc']))}: {detail['msg']}"
            for detail in error.errors(include_url=False)
        ]
        raise InputCheckError(f"the input is not a valid {schema.__name__}: {'; '.join(lines)}") from error
    except KernError:
        raise
    except Exception as error:
        raise InputCheckError(f"the input is not a valid {schema.__name__}: {raised_by(error)}") from error
    raise UsageError(
        f"with input_schema={schema.__name__} the input must be a dict, JSON text or a "
        f"{schema.__name__}, not {type(given).__name__}"
    )


def with_input(spec: RunnerSpec, schema: type[pydantic.BaseModel] | None) -> RunnerSpec:
    """Return `spec` with a check of the task if it runs as a team member; the leader gets the error."""
    if schema is None:
        return spec
    return replace(spec, before=(partial(_check_task, answer_schema(schema)), *spec.before))


def check_input_schema(schema: object) -> None:
    """Check that `schema` is a pydantic model class with a JSON schema.

    Raises:
        UsageError: It is not.
    """
    if not (isinstance(schema, type) and issubclass(schema, pydantic.BaseModel)):
        raise UsageError(f"input_schema must be a pydantic model class, not {schema!r}")
    answer_schema(schema)


async def _check_task(schema: AnswerSchema, run: Run) -> None:
    if run.parent is None:
        return  # the input of a top-level run is checked already
    try:
        schema.read(run.input.input_content)
    except BadAnswer as error:
        raise InputCheckError(f"the task must be JSON that fits {schema.name}. {error}") from error


def whole_message(message: Message) -> Message:
    """The message with whole texts; an application may share it, so it is not changed."""
    texts = [(part, whole(part.text)) for part in message.parts if isinstance(part, TextPart)]
    if all(part.text is text for part, text in texts):
        return message
    given = {id(part): replace(part, text=text) for part, text in texts}
    return replace(message, parts=[given.get(id(part), part) for part in message.parts])
