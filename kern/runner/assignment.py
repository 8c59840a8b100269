"""Attributes of an agent or a team that are set after the constructor: they are checked as it checks them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

T = TypeVar("T")


class ChecksAssignments:
    """The base of classes that check their parameters again when one is set. What fails is not set."""

    __slots__ = ()

    __dataclass_fields__: ClassVar[dict[str, Any]]
    _own_id: str
    """Set at the end of the constructor, which checks for itself."""
    _unfinished: ClassVar[type]
    """The class of its objects while their constructor runs, see `unfinished`."""

    def _check(self) -> None:
        """Check the parameters, for the constructor and for `__setattr__`."""
        raise NotImplementedError

    if not TYPE_CHECKING:  # type checkers know the attributes and their types

        def __setattr__(self, name: str, value: Any) -> None:
            field = self.__dataclass_fields__.get(name)
            if field is None or not field.init or not hasattr(self, "_own_id"):
                object.__setattr__(self, name, value)
                return
            before = getattr(self, name)
            object.__setattr__(self, name, value)
            try:
                self._check()
            except BaseException:
                object.__setattr__(self, name, before)
                raise


class _Unfinished:
    """Makes `__setattr__` the interpreter's own, until the constructor has set and checked everything.

    A constructor sets 70 attributes: a call of a function for each would make it half as slow again.
    """

    __slots__ = ()
    __setattr__ = object.__setattr__

    def __init_subclass__(cls) -> None:
        """Do nothing: the `__init_subclass__` of an application is not meant for this class."""


def unfinished(kind: type[T]) -> type[T]:
    """Return the class that an object of `kind` has until `finish` is called."""
    if (made := vars(kind).get("_unfinished")) is None:
        if kind.__setattr__ is not ChecksAssignments.__setattr__:  # an application's own
            return kind
        names = {"__slots__": (), "__module__": kind.__module__, "__qualname__": kind.__qualname__}
        metaclass: Any = type(kind)
        made = metaclass(kind.__name__, (_Unfinished, kind), {**names, "_finished": kind})
        kind._unfinished = made  # type: ignore[attr-defined]
    return made  # type: ignore[no-any-return]


def finish(made: object) -> None:
    """Give an object its own class: from now on, what is set is checked."""
    if (kind := vars(type(made)).get("_finished")) is not None:
        made.__class__ = kind
