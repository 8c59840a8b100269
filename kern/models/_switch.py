"""`forbid_requests`: keeps tests from asking real models.

Requests to the local machine (localhost, 127.0.0.0/8, ::1) always pass: tests use a model server there
instead of a real model.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from ipaddress import ip_address
from types import TracebackType

from kern.errors import UsageError

_mutex = threading.Lock()
_forbidden = 0
_allowed_here: ContextVar[bool] = ContextVar("kern_model_requests_allowed", default=False)


class RequestsForbidden:
    """A ban on model requests, as `forbid_requests` returns it; used in a `with` statement, it ends there."""

    def __init__(self) -> None:
        self._active = True

    def lift(self) -> None:
        """End this ban; a second call does nothing."""
        global _forbidden
        with _mutex:
            if self._active:
                self._active = False
                _forbidden -= 1

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.lift()


def forbid_requests() -> RequestsForbidden:
    """Make every model request over the network raise `UsageError`, in all threads and event loops.

    Write this in the `conftest.py` of an application::

        kern.models.forbid_requests()

    or `with kern.models.forbid_requests(): ...` for a part of the program. Requests to the local machine stay
    allowed, and so do models that send none, such as those of `kern.testing`.
    """
    global _forbidden
    with _mutex:
        _forbidden += 1
    return RequestsForbidden()


@contextmanager
def allow_requests() -> Iterator[None]:
    """Lift all bans inside the `with` block, for this task and the tasks that it starts."""
    token = _allowed_here.set(True)
    try:
        yield
    finally:
        _allowed_here.reset(token)


def check_allowed(host: str) -> None:
    """Raise `UsageError` if requests to `host` are forbidden here."""
    if _forbidden and not _allowed_here.get() and not is_loopback(host):
        raise UsageError(
            f"a model request to {host} was stopped, since forbid_requests() is in force: "
            "use a model of kern.testing, or `with kern.models.allow_requests():`"
        )


@lru_cache(maxsize=64)
def is_loopback(host: str) -> bool:
    """Whether `host` is the local machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
