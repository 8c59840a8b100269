"""Converts a server's names of tools to names that providers accept: MCP allows more characters."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from hashlib import sha256

_FOREIGN = re.compile(r"[^A-Za-z0-9_-]")
_MOST_CHARACTERS = 64
_HASH_CHARACTERS = 8


def shown_name(name: str, prefix: str | None = None) -> str:
    """A server's name for a tool in the characters and the length that providers accept."""
    return _FOREIGN.sub("_", f"{prefix}_{name}" if prefix else name)[:_MOST_CHARACTERS]


def shown_names(names: Iterable[str], prefix: str | None = None) -> dict[str, str]:
    """Map each of the server's names to a unique name for the model.

    Names that would become equal get a hash of the server's name, so that they do not depend on the order in
    which the server lists its tools. A name that needs no conversion stays as it is.
    """
    plain = {name: shown_name(name, prefix) for name in names}
    count = Counter(plain.values())
    taken = {short for name, short in plain.items() if count[short] == 1 or short == _whole(name, prefix)}
    shown = {}
    for name, short in plain.items():
        if count[short] > 1 and short != _whole(name, prefix):
            short = _made_distinct(name, short, taken)
            taken.add(short)
        shown[name] = short
    return shown


def _whole(name: str, prefix: str | None) -> str:
    return f"{prefix}_{name}" if prefix else name


def _made_distinct(name: str, short: str, taken: set[str]) -> str:
    digest = sha256(name.encode(errors="surrogatepass")).hexdigest()
    for start in range(len(digest) - _HASH_CHARACTERS):
        end = "_" + digest[start : start + _HASH_CHARACTERS]
        candidate = short[: _MOST_CHARACTERS - len(end)] + end
        if candidate not in taken:
            return candidate
    raise AssertionError("a hash has more places than a server has tools of one name")
