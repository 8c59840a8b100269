"""Masks keys of the environment in recordings: the name replaces the value, and matches any value in a
replay.

A recording therefore has no key in it, and can be replayed in any environment: with the same key, another
one, or none.
"""

from __future__ import annotations

import json
import os
import re
from typing import Any

SHORTEST = 16
"""The minimum length of a key. Shorter values, such as "test", may also occur in other texts."""

_ENDS = r"(?:API_KEY|ACCESS_KEY|TOKEN|SECRET|PASSWORD)"
_IS_KEY = re.compile(rf"(?:\w*_)?{_ENDS}", re.IGNORECASE)
_NAMED = re.compile(rf"\*\*\*(?:\w*_)?{_ENDS}\*\*\*", re.IGNORECASE)


class EnvironmentKeys:
    """The values of the environment variables whose names end like that of a key."""

    def __init__(self) -> None:
        self.found: set[str] = set()
        """The variables whose values were found."""
        keys = {
            value.strip(): name
            for name, value in sorted(os.environ.items())
            if _IS_KEY.fullmatch(name) and len(value.strip()) >= SHORTEST
        }
        keys.update({json.dumps(value)[1:-1]: name for value, name in keys.items()})
        self._keys = sorted(keys.items(), key=lambda item: -len(item[0]))

    def masked(self, value: Any) -> Any:
        """JSON data with the names of keys in place of their values."""
        if isinstance(value, str):
            for key, name in self._keys:
                if key in value:
                    self.found.add(name)
                    value = value.replace(key, f"***{name}***")
        elif isinstance(value, dict):
            return {self.masked(name): self.masked(item) for name, item in value.items()}
        elif isinstance(value, list):
            return [self.masked(item) for item in value]
        return value


def same(recorded: Any, now: Any) -> bool:
    """Whether JSON data equals the recorded data, with any text in the place of a key."""
    if recorded == now:
        return True
    if isinstance(recorded, str) and isinstance(now, str):
        return _same_text(recorded, now)
    if isinstance(recorded, list) and isinstance(now, list):
        return len(recorded) == len(now) and all(map(same, recorded, now))
    if not isinstance(recorded, dict) or not isinstance(now, dict) or len(recorded) != len(now):
        return False
    left = dict(now)
    named = []
    for name, item in recorded.items():
        if name not in left:
            named.append((name, item))
        elif not same(item, left.pop(name)):
            return False
    for name, item in named:
        found = next((other for other in left if _same_text(name, other) and same(item, left[other])), None)
        if found is None:
            return False
        del left[found]
    return True


def _same_text(recorded: str, now: str) -> bool:
    first, *rest = _NAMED.split(recorded)
    if not rest or not now.startswith(first):
        return False
    at, last = len(first), rest.pop()
    for part in rest:
        found = now.find(part, at + 1)
        if found < 0:
            return False
        at = found + len(part)
    return now.endswith(last) and len(now) - len(last) > at
