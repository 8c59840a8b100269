"""What a tool returned, as the text that the model is told."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError, to_json

_JSON = (BaseModel, Mapping, list, tuple, set, frozenset)


def result_text(value: Any) -> str:
    """The text for a tool's result: a str as it is, None as nothing, structured values as JSON.

    Objects that JSON does not know are written with `str()`, alone or within a structure; so is a structure
    that cannot be JSON at all, such as one that holds itself.
    """
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, _JSON) or (dataclasses.is_dataclass(value) and not isinstance(value, type)):
        try:
            return to_json(value, by_alias=True, fallback=str, inf_nan_mode="constants").decode()
        except (PydanticSerializationError, ValueError):
            return str(value)
    return str(value)
