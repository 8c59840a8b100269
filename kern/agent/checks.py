"""What programs pass to a constructor or a run, looked at before anything is begun with it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic_core import to_json

from kern.errors import UsageError
from kern.messages import MEDIA, Media
from kern.usage import UsageLimits


def check_keywords(what: str, given: Iterable[str], options: Any) -> None:
    """See that every keyword is a field of the dataclass `options`.

    Raises:
        TypeError: One is not.
    """
    known = options.__dataclass_fields__
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; there are: {', '.join(known)}"
            raise TypeError(f"{what} takes no keyword {name!r}{hint}")


def check_given(options: Any) -> None:
    """See that ids, mappings, media and limits are what they have to be, as far as `options` has them.

    Raises:
        UsageError: One is not.
    """
    for name in ("id", "session_id", "user_id", "run_id"):
        check_id(name, getattr(options, name, None))
    for name in ("dependencies", "metadata"):
        given = getattr(options, name, None)
        if given is not None and not isinstance(given, Mapping):
            raise UsageError(f"{name} takes a dict, not {type(given).__name__}")
    if metadata := getattr(options, "metadata", None):
        _check_json(metadata)
    for name, kind in MEDIA.items():
        _check_media(name, kind, getattr(options, name, None))
    timeout = getattr(options, "timeout", None)
    if timeout is not None and not (isinstance(timeout, int | float) and timeout > 0):
        raise UsageError(f"timeout is a number of seconds above 0, not {timeout!r}")
    limits = getattr(options, "usage_limits", None)
    if limits is not None and not isinstance(limits, UsageLimits):
        raise UsageError(f"usage_limits takes UsageLimits(requests=..., ...), not {type(limits).__name__}")


def check_id(name: str, value: Any) -> None:
    """See that an id is None, or a str that can be stored.

    Raises:
        UsageError: It is neither.
    """
    if value is None:
        return
    if not isinstance(value, str):
        raise UsageError(f"{name} is a str, not {type(value).__name__}")
    if not value:
        raise UsageError(f"{name} is empty; leave it out, or pass None, where there is none")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{name} holds half a surrogate pair, which no database can store") from None


def _check_json(metadata: Mapping[str, Any]) -> None:
    try:
        to_json(dict(metadata))
    except ValueError as error:
        raise UsageError(f"metadata is kept with the run, as JSON: {error}") from error


def _check_media(name: str, kind: type[Media], given: Any) -> None:
    if given is None:
        return
    if not isinstance(given, Sequence) or not all(isinstance(item, kind) for item in given):
        raise UsageError(f"{name} takes a list of {kind.__name__}(url=... | content=... | filepath=...)")
