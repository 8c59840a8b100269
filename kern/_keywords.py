"""Refuses unknown keywords and surplus arguments with a suggestion, which Python makes only from 3.13 on."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches
from functools import lru_cache
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from kern._habits import KEYWORDS
from kern._traceback import ShortTraceback

_MANY = 30  # keywords: too many to list in an error
_HAS_ARGS, _HAS_KEYWORDS = 0x04, 0x08  # flags of a code object: *args, **kwargs
_NO_HABITS: Final[Mapping[str, str]] = {}


def check_keywords(
    what: str, given: Iterable[str], known: Collection[str], habits: Mapping[str, str] = KEYWORDS
) -> None:
    """Check that every keyword is known.

    Args:
        what: What was called, for the error.
        given: The keywords that were passed.
        known: The keywords that exist.
        habits: Keywords of other libraries, with what to do instead.

    Raises:
        TypeError: A keyword is unknown; the error suggests another.
    """
    for name in given:
        if name not in known:
            if (instead := habits.get(name)) is not None:
                raise TypeError(f"{what} has no keyword {name!r}: {instead}")
            near = nearest(name, known) or _completed(name, known)
            there = f"it takes: {', '.join(known) or 'none'}" if len(known) < _MANY else f"see help({what})"
            hint = f"did you mean {near!r}?" if near is not None else there
            raise TypeError(f"{what} has no keyword {name!r}; {hint}")


def nearest(name: str, known: Collection[str], cutoff: float = 0.72) -> str | None:
    """The known name that a misspelt one most likely means: to swap two letters is the most frequent slip.

    None if no name is as close as `cutoff` says: no hint is better than a wrong one.
    """
    letters = sorted(name)
    swapped = [other for other in known if sorted(other) == letters]
    return next(iter(swapped or get_close_matches(name, known, 1, cutoff)), None)


def _completed(name: str, known: Collection[str]) -> str | None:
    """The known name of which `name` is a part."""
    words = set(name.split("_"))
    longer = [other for other in known if name in other or words <= set(other.split("_"))]
    return next(iter(get_close_matches(name, longer, 1, 0)), None)


class _Parameters(NamedTuple):
    """The parameters of a constructor.

    Args:
        positional: Those that may be passed by position; None if there is `*args`.
        names: All of them, in order; no two are the same.
    """

    positional: tuple[str, ...] | None
    names: dict[str, None]


@lru_cache(maxsize=256)
def _parameters(kind: type) -> _Parameters | None:
    """The parameters of a constructor; None if it takes any keywords, or is not written in Python."""
    init = next(vars(base)["__init__"] for base in kind.__mro__ if "__init__" in vars(base))
    init = inspect.unwrap(init)
    if not isinstance(init, FunctionType) or init.__code__.co_flags & _HAS_KEYWORDS:
        return None
    code = init.__code__
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    positional = None if code.co_flags & _HAS_ARGS else names[1 : code.co_argcount]
    return _Parameters(positional, dict.fromkeys(names[1:]))


def check_arguments(
    kind: type,
    args: tuple[Any, ...],
    given: Mapping[str, Any],
    habits: Mapping[str, str] = _NO_HABITS,
    example: str | None = None,
) -> None:
    """Check the arguments of a constructor by their names and their number.

    Args:
        kind: The class.
        args: The arguments that were passed by position.
        given: The arguments that were passed by keyword.
        habits: See `check_keywords`.
        example: The keyword that the error shows; None: the first one.

    Raises:
        TypeError: A keyword is unknown, or there are too many arguments by position.
    """
    if (parameters := _parameters(kind)) is None or (not args and given.keys() <= parameters.names.keys()):
        return
    positional, names = parameters
    check_keywords(kind.__name__, given, names, habits)
    if positional is not None and len(args) > len(positional) < len(names):
        example = example or next(name for name in names if name not in positional)
        if positional:
            takes = f"only {', '.join(positional)} by position; pass the others by keyword"
        else:
            takes = "keywords only"
        raise TypeError(f"{kind.__name__} takes {takes}, such as {kind.__name__}({example}=...)")


class ChecksArguments:
    """The base of classes whose constructors refuse unknown keywords with a suggestion."""

    __slots__ = ()

    if not TYPE_CHECKING:  # type checkers know the keywords from __init__

        def __new__(cls, *args: Any, **given: Any) -> Self:
            if args or given:  # copies and pickles have neither
                try:
                    check_arguments(cls, args, given)
                except TypeError:
                    with ShortTraceback():
                        raise
            return object.__new__(cls)
