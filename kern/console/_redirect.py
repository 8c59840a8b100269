"""Redirects standard output and standard error while a live region has the terminal."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any, TextIO, cast
from weakref import WeakValueDictionary

from kern.console._files import flush, is_terminal


class Redirect:
    """Replaces a terminal's stream: complete lines go to the live region, which prints them above itself.

    Without a region it writes to the stream: a logging handler may keep it for longer than a view lasts.

    Args:
        file: The stream itself.
    """

    def __init__(self, file: TextIO) -> None:
        self.file = file
        self._line = ""
        self._lock = threading.Lock()
        self._put: Callable[[str], None] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def write(self, text: str) -> int:
        """Pass on the lines that this text completes."""
        with self._lock:
            if self._put is None:
                return self.file.write(text)
            *lines, self._line = (self._line + text).split("\n")
            for line in lines:
                self._put(line)
        return len(text)

    def flush(self) -> None:
        """Pass on a line that has no newline yet."""
        with self._lock:
            if self._put is None:
                flush(self.file)
            elif self._line:
                self._put(self._line)
                self._line = ""

    def lead(self, put: Callable[[str], None] | None) -> None:
        """Send lines to `put` from now on; None: to the stream."""
        self.flush()
        with self._lock:
            self._put = put


_redirects: WeakValueDictionary[int, Redirect] = WeakValueDictionary()


def redirect(put: Callable[[str], None]) -> Callable[[], None]:
    """Send what is printed on the terminal to `put`, line by line; returns a function that ends this."""
    taken: list[tuple[str, Redirect]] = []
    for name in ("stdout", "stderr"):
        file = getattr(sys, name)
        if isinstance(file, Redirect) or not is_terminal(file):
            continue
        stream = _redirects.setdefault(id(file), Redirect(file))
        stream.lead(put)
        setattr(sys, name, cast("TextIO", stream))
        taken.append((name, stream))

    def give_back() -> None:
        for name, stream in taken:
            stream.lead(None)
            if getattr(sys, name) is stream:
                setattr(sys, name, stream.file)

    return give_back


def real_stdout() -> TextIO | None:
    """Standard output itself, even if it is redirected."""
    file = cast("TextIO | Redirect | None", sys.stdout)
    return file.file if isinstance(file, Redirect) else file
