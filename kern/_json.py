"""Writes JSON that every parser accepts.

JSON cannot hold two kinds of Python values. A str may contain half of a surrogate pair: from a file name that
is not UTF-8, from a terminal, from a broken emoji. No encoding can write it, and the result of a run must not
be lost for that, so it becomes U+FFFD. A float may be NaN or infinite: Python's parser reads these as bare
words, but those of browsers do not, so it becomes null.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from typing import Any, Final, TypeVar

import pydantic
from pydantic_core import from_json, to_json, to_jsonable_python

T = TypeVar("T")


def json_bytes(
    value: Any,
    *,
    indent: int | None = None,
    fallback: Callable[[Any], Any] | None = None,
) -> bytes:
    """The value as JSON (RFC 8259).

    Args:
        value: The value.
        indent: The number of spaces per level; None: one line.
        fallback: Called with a value that has no JSON form; returns a replacement.

    Raises:
        ValueError: The value, or a part of it, has no JSON form.
    """
    try:
        text = to_json(value, by_alias=True, indent=indent, fallback=fallback, inf_nan_mode="null")
    except ValueError as error:  # search the value only now: such text is rare, and the search is slow
        mended = _mended_after(error, value)
        text = to_json(mended, by_alias=True, indent=indent, fallback=fallback, inf_nan_mode="null")
    if (
        b"NaN" in text or b"Infinity" in text
    ):  # in a text, or bare, as the config of a pydantic model may want
        return to_json(from_json(text), indent=indent, inf_nan_mode="null")
    return text


def whole(text: str) -> str:
    """The text with its surrogate pairs joined, and with U+FFFD for each half that stands alone."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return str(_mended(text))
    return text


def encodable(data: T) -> T:
    """Plain JSON data whose texts are `whole`; the same object if they all are."""
    try:
        to_json(data)
    except ValueError as error:
        mended: T = _mended_after(error, data)
        return mended
    return data


def jsonable(value: Any) -> Any:
    """The value as plain JSON data.

    Raises:
        ValueError: The value, or a part of it, has no JSON form; or two keys of a dict are one key in JSON.
    """
    if value is None or isinstance(value, str | int):
        return value
    try:
        plain = to_jsonable_python(value, by_alias=True, inf_nan_mode="null")
    except ValueError as error:
        plain = to_jsonable_python(_mended_after(error, value), by_alias=True, inf_nan_mode="null")
    if plain and isinstance(plain, dict | list):
        check_keys(value)
    return finite(plain)


def check_keys(value: Any, path: str = "") -> None:
    """Check that no two keys of a dict are one key in JSON, as 1 and "1" are: one value would be lost.

    Args:
        value: A value that has a JSON form; dicts are also looked for in lists, pydantic models and so on.
        path: Where the value stands, as a JSON Pointer.

    Raises:
        ValueError: Two keys are; the message starts with the path of their dict.
    """
    items: Iterable[tuple[Any, Any]]
    if isinstance(value, dict):
        if not all(type(key) is str and key.isascii() for key in value):
            _check_names(value, path)
        items = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    elif isinstance(value, pydantic.BaseModel):
        try:
            _check_parts(value, path)
        except ValueError:  # look again, without what the model excludes or writes in its own way
            check_keys(value.model_dump(), path)
        return
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        items = ((field.name, getattr(value, field.name, None)) for field in dataclasses.fields(value))
    else:
        return
    _check_parts(items, path)


def _check_parts(items: Iterable[tuple[Any, Any]], path: str) -> None:
    for key, item in items:
        if item is not None and not isinstance(item, str | int | float):
            check_keys(item, f"{path}/{key}")


def _check_names(value: dict[Any, Any], path: str) -> None:
    names: dict[str, Any] = {}
    for key in value:
        [name] = _mended({key: None} if isinstance(key, str) else to_jsonable_python({key: None}))
        if name in names:
            where = f"{path}: " if path else ""
            raise ValueError(f"{where}the keys {names[name]!r} and {key!r} are the same key in JSON")
        names[name] = key


def _mended_after(error: ValueError, value: Any) -> Any:
    """The value without text that no encoding can write, which may be the reason of the error.

    Raises:
        ValueError: The same error, if the value contains itself.
    """
    try:
        return _mended(value)
    except RecursionError:
        raise error from None


def copied(value: Any) -> Any:
    """A copy of data that is, or can be written as, JSON: nothing that can be changed in it is shared."""
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    if isinstance(value, list):
        return [copied(item) for item in value]
    if value is None or isinstance(value, str | int | float):
        return value
    return copy.deepcopy(value)


def exact(value: Any, other: Callable[[Any], Any] | None = None, path: str = "") -> Any:
    """The value as plain JSON data that says all that the value says. A tuple becomes a list.

    Args:
        value: The value.
        other: Makes plain data of a value of another type; None: there must be none.
        path: Where the value stands, as a JSON Pointer.

    Raises:
        ValueError: JSON has no place for a part of the value; the message starts with its path.
    """
    if value is None or (isinstance(value, str | int) and not isinstance(value, Enum)):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{path}: {value} is not a number in JSON")
        return value
    if isinstance(value, list | tuple):
        return [exact(item, other, f"{path}/{at}") for at, item in enumerate(value)]
    if isinstance(value, dict):
        if wrong := [key for key in value if not isinstance(key, str)]:
            raise ValueError(f"{path}: the key {wrong[0]!r} is not a str")
        return {key: exact(item, other, f"{path}/{key}") for key, item in value.items()}
    if other is None:
        raise ValueError(f"{path}: a {type(value).__name__} is not JSON")
    try:
        return other(value)
    except ValueError as error:
        raise ValueError(f"{path}: a {type(value).__name__} would be changed: {error}") from None


def read_back(value: Any) -> Any:
    """The value as JSON data from which its type makes an equal value.

    Raises:
        ValueError: There is none: the type masks, leaves out or converts something.
    """
    plain = jsonable(value)
    try:
        again = pydantic.TypeAdapter(type(value)).validate_json(to_json(plain))
        same = type(again) is type(value) and bool(again == value)
    except Exception as error:  # a type without a schema, or its own validators
        raise ValueError(f"JSON cannot hold it: {type(error).__name__}") from error
    if not same:
        raise ValueError("what is read back from its JSON text is not equal to it")
    return plain


_ROOM = 16
"""How many levels a row of the database puts around a value."""
_SURELY_FLAT = 150
SURELY_FLAT: Final = 300
"""A JSON text of so many characters has few levels."""


def check_depth(text: bytes) -> None:
    """Check that JSON is not nested so deeply that it could not be read back from a row of the database.

    Raises:
        ValueError: It is.
    """
    if text.count(b"{") + text.count(b"[") > _SURELY_FLAT:
        from_json(b"[" * _ROOM + text + b"]" * _ROOM)


def order_sets(tree: Any, value: Any) -> Any:
    """Sort, in place, the lists in `tree` that were written from sets in `value`; return `tree`.

    The order of a set differs from process to process, and equal values must have the same text.
    """
    if isinstance(value, set | frozenset):
        if isinstance(tree, list):
            tree.sort(key=to_json)
    elif isinstance(value, pydantic.BaseModel):
        if isinstance(tree, dict):
            for name, item in value:
                field = type(value).model_fields.get(name)
                alias = None if field is None else field.serialization_alias
                order_sets(tree.get(name, tree.get(alias)), item)
        else:
            order_sets(tree, getattr(value, "root", None))
    elif dataclasses.is_dataclass(value):
        if isinstance(tree, dict):
            for declared in dataclasses.fields(value):
                order_sets(tree.get(declared.name), getattr(value, declared.name, None))
    elif isinstance(value, Mapping):
        if isinstance(tree, dict):
            for part, item in zip(tree.values(), value.values(), strict=False):
                order_sets(part, item)
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes) and isinstance(tree, list):
        for part, item in zip(tree, value, strict=False):
            order_sets(part, item)
    return tree


def finite(value: Any) -> Any:
    """JSON data with null in place of each NaN and infinity; the same object if there are none."""
    return value if non_finite(value) is None else _with_nulls(value)


def non_finite(value: Any) -> str | None:
    """The JSON Pointer of the first NaN or infinity in JSON data, with its name; None if there is none."""
    if isinstance(value, float):
        return None if math.isfinite(value) else f": {_WORDS.get(value, 'NaN')}"
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    for key, item in items:
        if isinstance(item, float | dict | list | tuple) and (found := non_finite(item)) is not None:
            return f"/{key}{found}"
    return None


UNREAL: Final = re.compile(
    r'"\s*[+-]?(?:nan|inf(?:inity)?|[\d._]+e\+?\d{3,}|\d{309,}[\d.]*)\s*"|\\u00', re.IGNORECASE
)
"""Matches JSON of which a validator may make a NaN or an infinity: a text that is read as one."""


def unreal(made: Any) -> str | None:
    """The JSON Pointer of the first NaN or infinity in what a validator made, with its name; None if there
    are none.
    """
    try:
        plain = to_jsonable_python(made, by_alias=True, inf_nan_mode="constants", fallback=str)
    except (ValueError, RecursionError):
        return None
    return non_finite(plain)


_WORDS = {math.inf: "Infinity", -math.inf: "-Infinity"}


def _with_nulls(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _with_nulls(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_with_nulls(item) for item in value]
    return value


def _mended(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, dict):
        return {_mended(key): _mended(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_mended(item) for item in value]
    return value


def value_text(value: Any) -> str:
    """Any value as text: a str as it is, None as "", a member of an Enum as its value, structured
    values as JSON.

    Objects without a JSON form are written with `str()`, also inside a structure. So is a structure that
    cannot be JSON at all, such as one that contains itself.
    """
    if isinstance(value, Enum):  # the value, as inside a structure
        value = value.value
    if isinstance(value, str):
        return str.__str__(value)  # not what a subclass makes of it
    if value is None:
        return ""
    if _is_structured(value):
        try:
            return json_bytes(value, fallback=str).decode()
        except (ValueError, RecursionError):
            return str(value)
    return str(value)


def _is_structured(value: Any) -> bool:
    if isinstance(value, type):
        return False
    structures = (Mapping, list, tuple, set, frozenset, pydantic.BaseModel)
    return isinstance(value, structures) or dataclasses.is_dataclass(value)
