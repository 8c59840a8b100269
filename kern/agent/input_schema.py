"""`input_schema`: the input of a run, checked before it begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from kern.errors import InputCheckError, UsageError
from kern.messages import Message

Input = str | Sequence[Any] | Mapping[str, Any] | Message | BaseModel


def checked_input(schema: type[BaseModel] | None, given: Input) -> Input:
    """The input as an instance of `schema`; as it is, where there is none.

    Raises:
        InputCheckError: A dict, JSON text or instance that does not fit; the text says where.
        UsageError: Something that could not fit, such as a `Message`.
    """
    if schema is None or isinstance(given, schema):
        return given
    if isinstance(given, BaseModel):
        raise UsageError(f"the input is a {type(given).__name__}, and input_schema is {schema.__name__}")
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
        raise InputCheckError(f"the input is no {schema.__name__}: {'; '.join(lines)}") from error
    raise UsageError(
        f"with an input_schema the input is a dict, JSON text or a {schema.__name__}, "
        f"not {type(given).__name__}"
    )
