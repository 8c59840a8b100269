"""`input_schema`: the input of a run, checked before it begins; a member's task, where that begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

import pydantic
from pydantic import ValidationError

from kern.errors import InputCheckError, UsageError
from kern.messages import Message
from kern.runtime.answer_schema import AnswerSchema, BadAnswer, answer_schema
from kern.runtime.run_tree import Run, RunnerSpec

Input: TypeAlias = "str | Sequence[Any] | Mapping[str, Any] | Message | pydantic.BaseModel"


def checked_input(schema: type[pydantic.BaseModel] | None, given: Input) -> Input:
    """The input as an instance of `schema`; as it is, where there is none.

    Raises:
        InputCheckError: A dict, JSON text or instance that does not fit; the text says where.
        UsageError: Something that could not fit, such as a `Message`.
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
    raise UsageError(
        f"with input_schema={schema.__name__} the input must be a dict, JSON text or a "
        f"{schema.__name__}, not {type(given).__name__}"
    )


def with_input(spec: RunnerSpec, schema: type[pydantic.BaseModel] | None) -> RunnerSpec:
    """`spec`, which as a member takes no task that does not fit; the leader is told why."""
    if schema is None:
        return spec
    return replace(spec, before=(partial(_check_task, answer_schema(schema)), *spec.before))


def check_input_schema(schema: object) -> None:
    """See that it is a pydantic model class that has a JSON schema.

    Raises:
        UsageError: It is not.
    """
    if not (isinstance(schema, type) and issubclass(schema, pydantic.BaseModel)):
        raise UsageError(f"input_schema must be a pydantic model class, not {schema!r}")
    answer_schema(schema)


async def _check_task(schema: AnswerSchema, run: Run) -> None:
    if run.parent is None:
        return  # checked already
    try:
        schema.read(run.input.input_content)
    except BadAnswer as error:
        raise InputCheckError(f"the task must be JSON that fits {schema.name}. {error}") from error
