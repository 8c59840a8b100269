"""The key of a cached result: a digest of the tool, of what it is bound to, and of its arguments.

Two values have one key only if they are equal in all that a tool can see of them. A JSON text would not do:
it masks secrets, leaves out excluded fields and private attributes, and has one text for 1 and "1" as keys.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import hashlib
import pathlib
import types
import uuid
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal
from enum import Enum
from typing import Any, Final

import pydantic
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from kern.tools.signature import describe
from kern.tools.toolkit import Toolkit

_OF_TOOLKITS: Final = frozenset({"name", "instructions", "functions"})
_KEYED_BY_REPR: Final = (
    *(bool, int, float, complex, str, bytes, bytearray, Decimal, uuid.UUID, type(None)),
    *(type(pathlib.Path()), pathlib.PurePosixPath, pathlib.PureWindowsPath, range),
    *(datetime.datetime, datetime.date, datetime.time, datetime.timedelta),
)
_SEQUENCES: Final = (list, tuple)
_SETS: Final = (set, frozenset)

_tokens: Final[dict[int, tuple[weakref.ref[Any], str]]] = {}
"""The names of living objects, by their `id`."""


def key_of(name: str, function: Callable[..., Any], arguments: Mapping[str, Any]) -> str:
    """Return the key of a call: a hexadecimal digest that can be a file's name.

    Values that are not plain data are keyed by identity: their results are found in this process only.

    Args:
        name: The name of the tool.
        function: Its callable.
        arguments: The validated arguments.
    """
    try:
        passed = _sorted((key, _key_part(value)) for key, value in arguments.items())
        said = [name, describe(function), *_bound(function), passed]
        return hashlib.sha256(repr(said).encode("utf-8", "surrogatepass")).hexdigest()
    except RecursionError:  # a value that contains itself is never found again
        return uuid.uuid4().hex


def _key_part(value: Any) -> Any:
    """The value as nested tuples of texts."""
    kind = type(value)
    if kind in _KEYED_BY_REPR:
        return kind.__name__, repr(value)
    if kind in _SEQUENCES:
        return kind.__name__, tuple(map(_key_part, value))
    if kind in _SETS:
        return kind.__name__, _sorted(map(_key_part, value))
    if kind is dict:
        return "dict", tuple((_key_part(key), _key_part(item)) for key, item in value.items())
    if isinstance(value, Enum):
        return describe(kind), value.name
    if isinstance(value, pydantic.SecretStr | pydantic.SecretBytes):
        return describe(kind), _key_part(value.get_secret_value())
    if isinstance(value, FieldInfo):  # the default of a parameter
        return "Field", _key_part(value.default), _key_part(value.default_factory)
    if value is PydanticUndefined:
        return ("undefined",)
    if isinstance(value, pydantic.BaseModel) or (dataclasses.is_dataclass(value) and kind is not type):
        return _attributes(value)
    base: Any
    for base in (*_KEYED_BY_REPR, *_SEQUENCES, *_SETS, dict):  # a subclass may have attributes of its own
        if isinstance(value, base):
            plain = base.__repr__(value) if base in _KEYED_BY_REPR else _key_part(base(value))
            return (*_attributes(value), plain)
    return ("object", _token(value))


def _sorted(items: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(sorted(items, key=repr))


def _bound(function: Callable[..., Any]) -> Iterator[Any]:
    """The data that a callable carries beside its code."""
    if isinstance(function, functools.partial):
        yield _key_part([function.args, function.keywords])
        yield from _bound(function.func)
    elif isinstance(function, types.MethodType):
        yield _owner(function.__self__)
        yield from _bound(function.__func__)
    elif isinstance(function, types.FunctionType):
        empty = types.CellType()
        yield _key_part([cell.cell_contents for cell in function.__closure__ or () if cell != empty])
        for default in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
            part = _key_part(default)
            yield _token(function) if part[0] == "object" else part
    elif not isinstance(function, type):
        yield _owner(function)


def _owner(owner: Any) -> Any:
    if isinstance(owner, type):
        return describe(owner)
    attributes = _attributes(owner)
    return attributes if len(attributes) > 1 else _token(owner)


def _attributes(owner: Any) -> tuple[Any, ...]:
    """The class of an object, and all its attributes: those in slots and private ones included."""
    hidden = _OF_TOOLKITS if isinstance(owner, Toolkit) else frozenset()
    found: dict[str, Any] = {}
    for base in reversed(type(owner).__mro__):
        slots = base.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name.startswith("__") and not name.endswith("__"):
                name = f"_{base.__name__.lstrip('_')}{name}"
            if name not in ("__dict__", "__weakref__", "__pydantic_fields_set__") and hasattr(owner, name):
                found[name] = getattr(owner, name)
    found |= getattr(owner, "__dict__", {})
    part = (describe(type(owner)),)
    if not found and not hasattr(owner, "__dict__"):
        return part
    return (*part, _sorted((name, _key_part(item)) for name, item in found.items() if name not in hidden))


def _token(value: Any) -> str:
    """A name for an object that is unique in this process and all others, also if others are equal to it."""
    at = id(value)
    known = _tokens.get(at)
    if known is None or known[0]() is not value:
        try:
            known = (weakref.ref(value, lambda _: _tokens.pop(at, None)), uuid.uuid4().hex)
        except TypeError:  # no weak reference is possible: never found again
            return uuid.uuid4().hex
        _tokens[at] = known
    return known[1]
