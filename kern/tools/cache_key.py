"""The key of a cached result: a digest of the tool, of what it is bound to, and of its arguments.

Two values have one key only if they are equal in all that a tool can see of them. A JSON text would not do:
it masks secrets, leaves out excluded fields and private attributes, and has one text for 1 and "1" as keys.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import hashlib
import logging
import operator
import os
import pathlib
import re
import sys
import threading
import types
import uuid
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal
from enum import Enum
from typing import Any, Final

import pydantic
from pydantic_core import PydanticUndefined

from kern.errors import UsageError
from kern.tools.signature import describe
from kern.tools.toolkit import Toolkit

_MADE_OF_THE_REST: Final = frozenset({"functions"})  # of a toolkit: functions, bound to it, that have a key
_KEYED_BY_REPR: Final = (
    *(bool, int, float, complex, str, bytes, bytearray, Decimal, uuid.UUID, type(None), type(...)),
    *(type(pathlib.Path()), pathlib.PurePosixPath, pathlib.PureWindowsPath, range, re.Pattern),
    *(datetime.datetime, datetime.date, datetime.time, datetime.timedelta, type(NotImplemented)),
)
_SEQUENCES: Final = (list, tuple)
_SETS: Final = (set, frozenset)
_LOCKS: Final = (type(threading.Lock()), type(threading.RLock()))
_CALLABLES: Final = (types.FunctionType, types.MethodType, types.BuiltinFunctionType, functools.partial)
_DESCRIPTORS: Final = (types.MemberDescriptorType, types.GetSetDescriptorType, types.WrapperDescriptorType)
_POINTER: Final = object.__basicsize__ // 2

_tokens: Final[dict[int, tuple[weakref.ref[Any], str]]] = {}
"""The names of living objects, by their `id`."""


class NoKeyError(UsageError):
    """Something that a tool is bound to, or is called with, has data that cannot be seen."""


def key_of(name: str, function: Callable[..., Any], arguments: Mapping[str, Any]) -> str:
    """Return the key of a call: a hexadecimal digest that can be a file's name.

    An object is keyed by its identity and its attributes: its results are found in this process only.

    Args:
        name: The name of the tool.
        function: Its callable.
        arguments: The validated arguments.

    Raises:
        NoKeyError: A value has data that cannot be seen, such as an open connection, or contains itself.
    """
    parts = _Parts()
    try:
        passed = _sorted((key, parts.of(value)) for key, value in arguments.items())
        said = [name, *parts.of_callable(function), passed]
        return hashlib.sha256(repr(said).encode("utf-8", "surrogatepass")).hexdigest()
    except RecursionError:
        raise NoKeyError("a value contains itself, or is nested too deeply") from None


class _Parts:
    """Makes nested tuples of texts from values."""

    def __init__(self) -> None:
        self._inside: dict[int, int] = {}  # the objects that are being described, with their depth

    def of(self, value: Any) -> Any:
        """The value's part of the key."""
        kind = type(value)
        if kind in _KEYED_BY_REPR:
            return kind.__name__, repr(value)
        if kind in _SEQUENCES:
            return kind.__name__, tuple(map(self.of, value))
        if kind in _SETS:
            return kind.__name__, _sorted(map(self.of, value))
        if kind is dict:
            return "dict", tuple((self.of(key), self.of(item)) for key, item in value.items())
        if isinstance(value, _CALLABLES):
            return "callable", tuple(self.of_callable(value))
        return self._once(value, self._of_object)

    def _once(self, value: Any, describe_it: Callable[[Any], Any]) -> Any:
        """Describe an object, unless it is being described: a class's method knows its class."""
        if (depth := self._inside.get(id(value))) is not None:
            return "again", depth
        self._inside[id(value)] = len(self._inside)
        try:
            return describe_it(value)
        finally:
            del self._inside[id(value)]

    def _of_object(self, value: Any) -> Any:
        kind = type(value)
        if isinstance(value, Enum):
            return self.of_class(kind), value.name, self.of(value.value)
        if isinstance(value, pydantic.SecretStr | pydantic.SecretBytes):
            return describe(kind), self.of(value.get_secret_value())
        if isinstance(value, pydantic.fields.FieldInfo):  # the default of a parameter
            return "Field", self.of(value.default), self.of(value.default_factory)
        if value is PydanticUndefined:
            return ("undefined",)
        if isinstance(value, type):
            return self.of_class(value)
        if isinstance(value, property | staticmethod | classmethod | functools.cached_property):
            names = ("fget", "fset", "__func__", "func")
            return kind.__name__, tuple(self.of(getattr(value, name, None)) for name in names)
        if isinstance(value, logging.Logger | types.ModuleType):
            return kind.__name__, getattr(value, "name", None) or getattr(value, "__name__", None)
        if isinstance(value, _LOCKS):
            return ("lock",)
        if isinstance(value, pydantic.BaseModel) or dataclasses.is_dataclass(value):
            return self._attributes(value)
        base: Any
        for base in (*_KEYED_BY_REPR, *_SEQUENCES, *_SETS, dict):  # a subclass may have attributes of its own
            if isinstance(value, base):
                plain = base.__repr__(value) if base in _KEYED_BY_REPR else self.of(base(value))
                return (*self._attributes(value), plain)
        seen = self._seen_whole(value)
        return "object", _token(value), *seen

    def of_callable(self, function: Callable[..., Any]) -> Iterator[Any]:
        """A callable's code, and the data that it carries beside it."""
        yield describe(function)
        if isinstance(function, functools.partial):
            yield self.of([function.args, function.keywords])
            yield from self.of_callable(function.func)
        elif isinstance(function, types.MethodType):
            owner = function.__self__
            yield self._once(owner, self.of_class if isinstance(owner, type) else self._of_owner)
            yield from self.of_callable(function.__func__)
        elif isinstance(function, types.FunctionType):
            yield self._once(function, self._of_function)
        elif isinstance(function, types.BuiltinFunctionType):
            yield self.of(function.__self__)
        elif isinstance(function, type):
            yield self._once(function, self.of_class)
        else:
            yield self._once(function, self._of_owner)

    def _of_function(self, function: types.FunctionType) -> Any:
        empty = types.CellType()
        cells = [cell.cell_contents for cell in function.__closure__ or () if cell != empty]
        defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
        return (
            os.path.abspath(function.__code__.co_filename),
            self._of_code(function.__code__),
            self.of(cells),
            tuple(_token(function) if type(value) is object else self.of(value) for value in defaults),
        )

    def _of_code(self, code: types.CodeType) -> Any:
        constants = (
            self._of_code(value) if isinstance(value, types.CodeType) else self.of(value)
            for value in code.co_consts
        )
        return code.co_name, code.co_code, code.co_names, code.co_varnames, tuple(constants)

    def of_class(self, kind: type) -> Any:
        """A class: its name and file; for one that a function has made also what its body has."""
        module = sys.modules.get(kind.__module__)
        try:
            importable = operator.attrgetter(kind.__qualname__)(module) is kind
        except AttributeError:
            importable = False
        name = describe(kind)
        if importable:
            at = getattr(module, "__file__", None)
            return name, at and os.path.abspath(at)
        body = sorted((key, item) for key, item in vars(kind).items() if _is_of_the_body(key, item))
        parts = tuple((key, self.of(item)) for key, item in body)
        return name, parts, tuple(self.of(base) for base in kind.__bases__)

    def _of_owner(self, owner: Any) -> Any:
        """The object of a method. One without attributes is keyed by identity."""
        found = self._seen_whole(owner)
        return found if len(found) > 1 else (_token(owner),)

    def _seen_whole(self, value: Any) -> tuple[Any, ...]:
        if _hides_data(type(value)):
            raise NoKeyError(f"{describe(type(value))} has data that cannot be seen")
        return self._attributes(value)

    def _attributes(self, owner: Any) -> tuple[Any, ...]:
        """The class of an object, and all its attributes: those in slots and private ones included."""
        hidden = _MADE_OF_THE_REST if isinstance(owner, Toolkit) else frozenset()
        found = dict(_slots(owner)) | getattr(owner, "__dict__", {})
        part = (self.of(type(owner)),)
        if not found and not hasattr(owner, "__dict__"):
            return part
        return (*part, _sorted((name, self.of(item)) for name, item in found.items() if name not in hidden))


def _sorted(items: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(sorted(items, key=repr))


def _slot_names(kind: type) -> Iterator[str]:
    for base in kind.__mro__[::-1]:
        slots = base.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__"):
                private = name.startswith("__") and not name.endswith("__")
                yield f"_{base.__name__.lstrip('_')}{name}" if private else name


def _slots(owner: Any) -> Iterator[tuple[str, Any]]:
    for name in _slot_names(type(owner)):
        if name != "__pydantic_fields_set__" and hasattr(owner, name):
            yield name, getattr(owner, name)


def _hides_data(kind: type) -> bool:
    """Whether objects of the class have data in C, which no attribute shows (as pickle finds it)."""
    shown = object.__basicsize__ + _POINTER * len(list(_slot_names(kind)))
    shown += _POINTER * (kind.__dictoffset__ > 0) + _POINTER * (kind.__weakrefoffset__ > 0)
    return kind.__itemsize__ > 0 or kind.__basicsize__ > shown


def _is_of_the_body(name: str, value: Any) -> bool:
    """Whether a class has an attribute from its body, and not from Python, pydantic or dataclasses."""
    if isinstance(value, _DESCRIPTORS) or name in ("_abc_impl", "__abstractmethods__"):
        return False
    if isinstance(value, types.FunctionType):
        return not value.__code__.co_filename.startswith("<")
    return not (name.startswith("__") and name.endswith("__"))


def _token(value: Any) -> str:
    """A name for an object that is unique in this process and all others, also if others are equal to it."""
    at = id(value)
    known = _tokens.get(at)
    if known is None or known[0]() is not value:
        try:
            known = (weakref.ref(value, lambda _: _tokens.pop(at, None)), uuid.uuid4().hex)
        except TypeError as error:
            raise NoKeyError(f"{describe(type(value))} cannot be told apart from others: {error}") from None
        _tokens[at] = known
    return known[1]
