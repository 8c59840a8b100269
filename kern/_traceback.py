"""Shortens the tracebacks of errors that leave sync methods and constructors to the caller's own lines."""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator
from functools import cache, wraps
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TypeVar

from kern.errors import KernError

T = TypeVar("T")

_KERN: Final = str(Path(__file__).parent)
_KEYWORDS: Final = str(Path(__file__).with_name("_keywords.py"))


class ShortTraceback:
    """Wrap the body of a sync method in this: Kern's errors leave it without the frames of Kern.

    Kern's errors are `KernError`s, and the `TypeError` for an unknown keyword.

    The frame of the method itself is removed, too: after `__exit__` the `with` block raises the error again,
    and the interpreter adds no frame for that. Frames of the application stay, such as those of a hook that
    failed, with the libraries that it called. The causes of the error are shortened in the same way.

    Args:
        whole: Leave the traceback as it is, to debug Kern itself.
    """

    __slots__ = ("_whole",)

    def __init__(self, *, whole: bool = False) -> None:
        self._whole = whole

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and not self._whole and _is_ours(error):
            for one in _chain(error):
                one.__traceback__ = _shortened(one.__traceback__)


def short_errors(kind: type[T]) -> type[T]:
    """Decorate a class: errors leave its constructor without frames of Kern, unless `debug_mode` is set."""
    init: Any = kind.__init__

    @wraps(init)
    def __init__(self: T, *args: Any, **given: Any) -> None:
        try:
            init(self, *args, **given)
        except (KernError, TypeError):
            with ShortTraceback(whole=bool(given.get("debug_mode"))):
                raise

    kind.__init__ = __init__  # type: ignore[method-assign, assignment]
    return kind


def _is_ours(error: BaseException) -> bool:
    if isinstance(error, KernError):
        return True
    trace = error.__traceback__ if isinstance(error, TypeError) else None
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_code.co_filename == _KEYWORDS


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, its causes and contexts, and the errors of groups."""
    seen: set[int] = set()
    left: list[BaseException | None] = [error]
    while left:
        one = left.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        left += (one.__cause__, one.__context__)
        if isinstance(one, BaseExceptionGroup):
            left += one.exceptions


def _shortened(trace: TracebackType | None) -> TracebackType | None:
    """The traceback without the frames of Kern, and without those of libraries that Kern called."""
    kept: list[TracebackType] = []
    own = False  # the frame before was the application's, or of a library that the application called
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        # The constructor of a dataclass comes from "<string>", and has the globals of its module.
        if file.startswith(_KERN) or (file == "<string>" and _is_kern(trace)):
            own = False
        elif own or not file.startswith(_libraries()):
            own = True
            kept.append(trace)
        trace = trace.tb_next
    made: TracebackType | None = None
    for one in reversed(kept):
        made = TracebackType(made, one.tb_frame, one.tb_lasti, one.tb_lineno)
    return made


def _is_kern(trace: TracebackType) -> bool:
    return str(trace.tb_frame.f_globals.get("__name__")).startswith("kern.")


@cache
def _libraries() -> tuple[str, ...]:
    """The beginnings of the paths of Python's own files, and of installed packages."""
    paths = sysconfig.get_paths()
    return ("<frozen", *(paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")))
