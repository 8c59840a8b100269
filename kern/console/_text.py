"""Text for a terminal: removes control characters, shortens, and fits the encoding."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from pydantic_core import PydanticSerializationError

from kern._json import json_bytes
from kern._log import REORDERING

_UNSAFE = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029{REORDERING}\ud800-\udfff]")


def clean(text: str) -> str:
    """The text with control characters replaced by visible symbols, so that a terminal does not obey them.

    Texts of models and tools cannot be trusted: an ESC in them could recolour the screen, change the window's
    title or write to the clipboard. Newlines and tabs stay. Lone surrogates, which no encoding can write,
    become U+FFFD.
    """
    if _UNSAFE.search(text) is None:
        return text
    return _UNSAFE.sub(_picture, text.replace("\r\n", "\n"))


def _picture(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)
    if code in (0x2028, 0x2029):  # other ends of a line
        return "\n"
    return "\u2421" if code == 0x7F else "\ufffd"


BREAK = "\x1f"
"""Marks where a line may be broken without a space. It has no width, and `clean` texts do not contain it."""

_IDEOGRAPHIC = (
    "\u2e80-\u303e\u3041-\u4dbf\u4e00-\u9fff\ua000-\ua4cf\uf900-\ufaff\uff01-\uff60\U00020000-\U0003fffd"
)
_OPENING = "「『（【〈《〔［｛〝"
_NOT_FIRST = "、。，．・：；？！」』）】〉》〕］｝〟ー々ゝゞヽヾぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮヵヶ"
_BREAKS = (
    rf"(?<=[{_IDEOGRAPHIC}])(?<![{_OPENING}])(?=[{_IDEOGRAPHIC}\w])(?![{_NOT_FIRST}])"
    rf"|(?<=\w)(?=[{_IDEOGRAPHIC}])(?![{_NOT_FIRST}])"
)


def breakable(text: str) -> str:
    """The text with a `BREAK` wherever scripts without spaces, such as Japanese and Chinese, break lines.

    A line does not begin with a full stop or a closing bracket, nor end with an opening one.
    """
    return text if text.isascii() else re.sub(_BREAKS, BREAK, text)


def encodable(text: str, encoding: str | None) -> str:
    """The text with a "?" for each character that `encoding` cannot write."""
    if encoding is None or text.isascii():
        return text
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.encode(encoding, "replace").decode(encoding)
    except LookupError:  # Python does not know the encoding
        return text.encode("ascii", "replace").decode()
    return text


def shorten(text: str, limit: int) -> str:
    """At most `limit` characters; the last one is "…" if the text was cut."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def first_line(text: str, limit: int) -> str:
    """The first line that is not empty, at most `limit` characters."""
    return shorten(next((line.strip() for line in text.splitlines() if line.strip()), ""), limit)


def content_text(content: Any) -> tuple[str, bool]:
    """An answer as text, and whether the text is JSON, as it is for a structured answer."""
    if content is None or isinstance(content, str):
        return content or "", False
    try:
        return json_bytes(content, indent=2).decode(), True
    except PydanticSerializationError:
        return str(content), False


def same_json(text: str, content: Any) -> bool:
    """Whether `text` is the structured `content`, as a model streamed it."""
    try:
        return bool(json.loads(text) == json.loads(content_text(content)[0]))
    except ValueError:
        return False


def format_seconds(seconds: float) -> str:
    """A duration as a person reads it: "0.4s", "12.3s", "2m 05s"."""
    if seconds < 59.95:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m {rest:02d}s"


def format_call(name: str, arguments: Mapping[str, Any], *, limit: int = 300) -> str:
    """A tool call on one line: `add_item(item="milk", count=2)`.

    A person decides by this line. Characters that have no picture are escaped, and a name that is no
    identifier is quoted, so that two different calls never look the same.
    """
    shown = ", ".join(f"{_argument(key)}={_value(value)}" for key, value in arguments.items())
    room = max(limit - len(name) - 2, 1)
    return f"{name}({shorten(shown, room)})"


def _argument(name: str) -> str:
    return name if name.isidentifier() else _value(name)


def _value(value: Any) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = repr(value)
    return text if text.isprintable() else "".join(map(_visible, text))


def _visible(character: str) -> str:
    return character if character.isprintable() else ascii(character)[1:-1]
