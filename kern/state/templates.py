"""Placeholders for state values in the developer's texts: "You plan for {user_name} in {trip.city}."

A placeholder is one name, or several names joined by dots, in single braces. A name consists of letters,
digits, "_" and "-"; the first name does not start with a digit. A dot leads from an object to its member;
attributes and list elements cannot be reached, and nothing is evaluated. All other text stays as it is:
unknown names, `{ spaced }`, `{{doubled}}`, `{}`, `{0}`, JSON, code. A value that was inserted is not searched
for placeholders.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import is_dataclass
from functools import lru_cache, partial
from itertools import chain, islice
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any, Final, NamedTuple

from pydantic_core import PydanticSerializationError

from kern._json import json_bytes
from kern._keywords import nearest
from kern._log import named
from kern.errors import UsageError
from kern.state.pointer import MISSING

log: Final = named("kern")

_CLOSE = 0.8  # how alike a name must be to be suggested
_NAMES = r"(?!\d)[\w-]+(?:\.[\w-]+)*"
_PLACEHOLDER = re.compile(rf"\{{\{{{_NAMES}\}}\}}|\{{({_NAMES})\}}")
_NAME = re.compile(r"(?!\d)[\w-]+")
_MOST_NAMES: Final = 100
_LONGEST_NAME: Final = 64
_MOST_LOOKS: Final = 8
_MOST_PLACEHOLDERS: Final = 256
_looked: Final[dict[str, int]] = {}
"""How often a value was looked for that a placeholder may mean."""

_LONGEST_CACHED = 32_768
"""The length in characters up to which parsed texts are cached. Longer texts usually differ from run to run,
such as a document in the instructions."""


class _Placeholder(NamedTuple):
    text: str
    names: tuple[str, ...]


def render(text: str, *sources: Mapping[str, Any]) -> str:
    """Replace the placeholders of a text with values.

    Args:
        text: Written by the developer, never by the end user.
        sources: Each placeholder takes its value from the first source that has it.

    Returns:
        The text. A dict or list is inserted as JSON, any other value as `str` renders it.

    Raises:
        UsageError: A dict or list holds a value that cannot be written as JSON.
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
    """Split a text into plain text and placeholders, which alternate; plain text comes first and last."""
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
    if _looked.get(placeholder.text, 0) < _MOST_LOOKS:
        _hint(placeholder, sources)
    return placeholder.text


def _hint(placeholder: _Placeholder, sources: tuple[Mapping[str, Any], ...]) -> None:
    """Log once that a placeholder has no value, if its name looks like a misspelt one.

    The first names of the sources are compared, in the first runs that have the placeholder: a run must not
    become slower for a large state, and nothing of a state may be kept.
    """
    looks = _looked.get(placeholder.text, 0)
    name = placeholder.names[0]
    if any(name in source for source in sources) or (looks == 0 and len(_looked) >= _MOST_PLACEHOLDERS):
        return
    names = [
        other
        for other in map(str, islice(chain.from_iterable(sources), _MOST_NAMES))
        if len(other) <= _LONGEST_NAME and _NAME.fullmatch(other)
    ]
    near = nearest(name, names, _CLOSE) if len(name) <= _LONGEST_NAME else None
    _looked[placeholder.text] = looks + 1 if near is None else _MOST_LOOKS
    if near is not None:
        log.warning(
            "a text has the placeholder %s, but there is no such value; did you mean {%s}? "
            "The placeholder stays in the text",
            placeholder.text,
            ".".join((near, *placeholder.names[1:])),
        )


def _find(source: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    value: Any = source
    for name in names:
        if not isinstance(value, Mapping) or name not in value:
            return MISSING
        value = value[name]
    return value


def check_is_data(what: str, value: object) -> None:
    """Check that a value can be read in a prompt: a function, or the address of an object, says nothing.

    Args:
        what: What the value is, for the error.

    Raises:
        UsageError: It is a function, or an object without a text of its own.
    """
    if isinstance(value, _FUNCTIONS):
        raise UsageError(
            f"{what} is a function, which is not called for a prompt: pass what it returns, or pass a "
            "function as instructions="
        )
    kind = type(value)
    if kind.__str__ is object.__str__ and kind.__repr__ is object.__repr__ and not is_dataclass(value):
        raise UsageError(
            f"{what} is a {kind.__name__} object without a text that a model could read: pass the value that "
            "the prompt needs, or give the class a __str__"
        )


_FUNCTIONS = (FunctionType, MethodType, BuiltinFunctionType, partial)


def _write(value: Any, placeholder: _Placeholder) -> str:
    if not isinstance(value, (dict, list)):
        if not isinstance(value, (str, int, float)):
            check_is_data(f"the value of {placeholder.text}", value)
        return str(value)
    try:
        return json_bytes(value).decode()
    except PydanticSerializationError as error:
        raise UsageError(f"the value of {placeholder.text} cannot be written as JSON: {error}") from error
