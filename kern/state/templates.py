"""Values of the session state in the developer's texts: "You plan for {user_name} in {trip.city}."

A placeholder is one name, or names joined by dots, in single braces. Names consist of letters, digits, "_"
and "-", and the first starts with no digit. Dots lead through objects only: no attribute and no list element
is reached, and nothing is evaluated. Everything else stays as it is written: unknown names, `{ spaced }`,
`{{doubled}}`, `{}`, `{0}`, JSON, code. A value that was put in is not looked at again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from pydantic_core import PydanticSerializationError

from kern._json import json_bytes
from kern.errors import UsageError
from kern.state.pointer import MISSING

_NAMES = r"(?!\d)[\w-]+(?:\.[\w-]+)*"
_PLACEHOLDER = re.compile(rf"\{{\{{{_NAMES}\}}\}}|\{{({_NAMES})\}}")
_LONGEST_CACHED = 32_768
"""Characters; texts above are made per run (a document in the instructions) more often than not."""


class _Placeholder(NamedTuple):
    text: str
    names: tuple[str, ...]


def render(text: str, *sources: Mapping[str, Any]) -> str:
    """Put values in for the placeholders of a text.

    Args:
        text: Written by the developer, never by the end user.
        sources: Each placeholder takes its value from the first of these that has it.

    Returns:
        The text. A value is put in as `str` makes it, a dict or list as JSON.

    Raises:
        UsageError: A dict or list holds what cannot be written as JSON.
    """
    if "{" not in text:
        return text
    parse = _parse if len(text) <= _LONGEST_CACHED else _parse.__wrapped__
    segments = parse(text)
    if len(segments) == 1:
        return text
    return "".join(segment if isinstance(segment, str) else _fill(segment, sources) for segment in segments)


@lru_cache(maxsize=256)
def _parse(text: str) -> tuple[str | _Placeholder, ...]:
    """Plain text and placeholders in turn, plain text at both ends."""
    segments: list[str | _Placeholder] = []
    done = 0
    for match in _PLACEHOLDER.finditer(text):
        if match[1] is not None:
            segments += (text[done : match.start()], _Placeholder(match[0], tuple(match[1].split("."))))
            done = match.end()
    return (*segments, text[done:])


def _fill(placeholder: _Placeholder, sources: tuple[Mapping[str, Any], ...]) -> str:
    for source in sources:
        value = _find(source, placeholder.names)
        if value is not MISSING:
            return _write(value, placeholder)
    return placeholder.text


def _find(source: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    value: Any = source
    for name in names:
        if not isinstance(value, Mapping) or name not in value:
            return MISSING
        value = value[name]
    return value


def _write(value: Any, placeholder: _Placeholder) -> str:
    if not isinstance(value, (dict, list)):
        return str(value)
    try:
        return json_bytes(value).decode()
    except PydanticSerializationError as error:
        raise UsageError(f"the value of {placeholder.text} cannot be written as JSON: {error}") from error
