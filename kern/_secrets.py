"""Masks keys, passwords and tokens, as a whole and in parts.

Error reporters record the local variables of every frame, also in libraries. So a secret is a `Masked` from
where it is read to where a library writes its bytes to the connection.
"""

from __future__ import annotations

import base64
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from html.entities import html5
from typing import Any
from urllib.parse import quote

HIDDEN = "***"

HARMLESS_HEADERS = frozenset(
    {
        "accept",
        "accept-charset",
        "accept-encoding",
        "accept-language",
        "anthropic-beta",
        "anthropic-version",
        "cache-control",
        "connection",
        "content-encoding",
        "content-language",
        "content-length",
        "content-type",
        "host",
        "http-referer",
        "openai-beta",
        "openai-organization",
        "openai-project",
        "origin",
        "referer",
        "traceparent",
        "user-agent",
        "x-title",
    }
)
"""Headers that a user may set and that are not secret. Any other header may be a secret."""

_SHORTEST = 8  # shorter ones ("none", "ollama") are words that messages may contain
_PIECE = 12
"""How many consecutive characters of a secret are a part that must not be shown."""

_DEEPEST_ESCAPES = 3
_LETTERS = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f"}
_ESCAPE = re.compile(
    r"\\u(?P<pair>d[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2})"
    r"|\\u(?P<four>[0-9a-f]{4})|\\u\{(?P<any>[0-9a-f]{1,6})\}|\\x(?P<two>[0-9a-f]{2})"
    r"|&\#x(?P<hex>[0-9a-f]{1,6});|%(?P<percent>[0-7][0-9a-f])"
    r"|&\#(?P<decimal>[0-9]{1,7});|&(?P<name>[a-z]{2,31}[0-9]{0,2});|\\(?P<letter>[^ux])",
    re.IGNORECASE | re.DOTALL,
)
_LOWER = {ord("A") + place: ord("a") + place for place in range(26)}


class Masked(str):
    """A text that is sent as it is, but whose `repr`, which error reporters call, is ***."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(HIDDEN)

    def __getitem__(self, key: Any) -> Masked:
        return Masked(super().__getitem__(key))


class MaskedBytes(bytes):
    """The same for bytes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(HIDDEN.encode())

    def __str__(self) -> str:
        return repr(self)

    def __getitem__(self, key: Any) -> Any:
        item = super().__getitem__(key)
        return item if isinstance(item, int) else MaskedBytes(item)


class Masker:
    """Replaces secrets in a text by ***; call it with the text.

    It replaces a whole secret, its parts ("Bearer" and the key, a name and a password), and every piece of 12
    characters, since texts may be cut, also by servers. It ignores case, and finds characters that are
    escaped as in JSON, HTML or URLs, also several times.

    Args:
        secrets: The secrets; those of fewer than 8 characters are ignored.
    """

    __slots__ = ("_blocks", "_pieces")

    def __init__(self, secrets: Iterable[str]) -> None:
        self._pieces: dict[int, set[str]] = {}
        self._blocks: dict[str, int] = {}
        """Every piece contains one of these blocks; the size is that of the pieces. A text without a block
        has no piece."""
        for secret in {_low(part) for whole in secrets for part in _parts(whole)}:
            size = min(_PIECE, len(secret))
            step = size // 2 if size == _PIECE else size
            starts = range(len(secret) - size + 1)
            self._pieces.setdefault(size, set()).update(secret[start : start + size] for start in starts)
            for start in range(0, len(secret) - step + 1, step):
                block = secret[start : start + step]
                self._blocks[block] = max(size, self._blocks.get(block, 0))

    def __call__(self, text: str) -> str:
        """`text` with secrets replaced by ***; the same object if there are none."""
        if len(text) < _SHORTEST:
            return text
        found = [level for level, view in enumerate(_views(text)) if self._seen(_low(view))]
        if not found:
            return text
        view = text
        places: Sequence[int] = range(len(text) + 1)
        hidden: list[tuple[int, int]] = []
        for level in range(found[-1] + 1):
            if level:
                view, places = _unescaped(view, places)
            hidden += [(places[start], places[stop]) for start, stop in self._found(_low(view))]
        shown: list[str] = []
        end = 0
        for start, stop in sorted(hidden):
            if start > end or not shown:
                shown += [text[end:start], HIDDEN]
            end = max(end, stop)
        return "".join((*shown, text[end:]))

    def _seen(self, low: str) -> bool:
        return any(block in low for block in self._blocks)

    def _found(self, low: str) -> Iterator[tuple[int, int]]:
        """The beginnings and ends of the pieces in the text."""
        tried: set[tuple[int, int]] = set()
        for block, largest in self._blocks.items():
            at = low.find(block)
            while at >= 0:
                for size in self._pieces:
                    if size <= largest or size == len(block):
                        tried.update((max(at - back, 0), size) for back in range(size - len(block) + 1))
                at = low.find(block, at + 1)
        for at, size in tried:
            piece = low[at : at + size]
            if piece in self._pieces[size]:
                yield at + size - len(piece.lstrip()), at + len(piece.rstrip())


def mask(text: str, secrets: Iterable[str]) -> str:
    """`text` with secrets replaced by ***; see `Masker`."""
    return Masker(secrets)(text)


def _low(text: str) -> str:
    return text.lower() if text.isascii() else text.translate(_LOWER)  # str.lower() can change the length


def _views(text: str) -> Iterator[str]:
    """The text, the text unescaped, that text unescaped again, and so on."""
    yield text
    for _ in range(_DEEPEST_ESCAPES):
        if not any(mark in text for mark in "\\&%"):
            return
        meant = _ESCAPE.sub(_meant, text)
        if meant == text:
            return
        yield (text := meant)


def _unescaped(text: str, places: Sequence[int]) -> tuple[str, Sequence[int]]:
    """The text unescaped, and the position of each of its characters, and of its end, in the original."""
    parts: list[str] = []
    kept: list[int] = []
    end = 0
    for match in _ESCAPE.finditer(text):
        meant = _meant(match)
        parts += [text[end : match.start()], meant]
        kept += places[end : match.start()]
        kept += [places[match.start()]] * len(meant)
        end = match.end()
    return "".join((*parts, text[end:])), [*kept, *places[end:]]


def _meant(match: re.Match[str]) -> str:
    """The character that an escape means."""
    kind = match.lastgroup or ""
    digits = match[kind]
    if kind == "letter":
        return _LETTERS.get(digits, digits)
    if kind == "name":
        return html5.get(f"{digits};", match[0])
    if kind == "pair":
        high, low = int(digits[:4], 16), int(digits[6:], 16)
        return chr(0x10000 + ((high & 0x3FF) << 10 | low & 0x3FF))
    code = int(digits, 10 if kind == "decimal" else 16)
    return chr(code) if code <= sys.maxunicode else match[0]


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
    # A backslash in the secret itself is unescaped like those in a text.
    return {view for part in found for view in _views(part) if len(view) >= _SHORTEST}
