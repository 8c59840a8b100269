"""Keys, passwords and tokens: none is shown, neither whole nor in pieces.

Error reporters write down the local variables of every frame, those of libraries included. So a secret is a
`Masked` from where it is read to where a library takes it apart into bytes on the wire.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

HIDDEN = "***"

_SHORTEST = 8  # shorter ones ("none", "ollama") are words that a message may well hold
_PIECE = 12
"""So many characters of a secret in a row are a part of it that must not be shown."""

_LOWER = {ord("A") + place: ord("a") + place for place in range(26)}  # str.lower() can change the length


class Masked(str):
    """A text that is itself where it is sent, and *** where it is shown by `repr`, which reporters call."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(HIDDEN)

    def __getitem__(self, key: Any) -> Masked:
        return Masked(super().__getitem__(key))


class MaskedBytes(bytes):
    """Likewise, as bytes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(HIDDEN.encode())

    def __str__(self) -> str:
        return repr(self)

    def __getitem__(self, key: Any) -> Any:
        item = super().__getitem__(key)
        return item if isinstance(item, int) else MaskedBytes(item)


def mask(text: str, secrets: Iterable[str]) -> str:
    """`text` with *** in place of all that belongs to a secret.

    That is a secret as a whole, what it is made of ("Bearer" and the key, a name and a password), and every
    piece of a dozen characters: texts are cut, by servers too. Capital letters or not is no difference.
    """
    low = text.translate(_LOWER)
    pieces: dict[int, set[str]] = {}
    for secret in {part.translate(_LOWER) for whole in secrets for part in _parts(whole)}:
        size = min(_PIECE, len(secret))
        starts = range(len(secret) - size + 1)
        pieces.setdefault(size, set()).update(secret[start : start + size] for start in starts)
    hidden = [
        (at + size - len(low[at : at + size].lstrip()), at + len(low[at : at + size].rstrip()))
        for size, known in pieces.items()
        for at in range(len(low) - size + 1)
        if low[at : at + size] in known
    ]
    shown: list[str] = []
    end = 0
    for start, stop in sorted(hidden):
        if start > end or not shown:
            shown += [text[end:start], HIDDEN]
        end = max(end, stop)
    return "".join((*shown, text[end:]))


def _parts(secret: str) -> set[str]:
    found = {secret, *re.split(r"[\s;,]+", secret)}
    found |= {part.partition("=")[2] for part in found}
    scheme, _, credentials = secret.partition(" ")
    if scheme.lower() == "basic":
        try:
            name_and_password = base64.b64decode(credentials).decode()
        except ValueError:
            name_and_password = ""
        found |= {name_and_password, name_and_password.partition(":")[2]}
    found |= {quote(part, safe="") for part in found}
    return {part for part in found if len(part) >= _SHORTEST}
