"""Parses docstrings in the three common styles into a description and texts for the parameters.

- Google: https://google.github.io/styleguide/pyguide.html#383-functions-and-methods
- NumPy: https://numpydoc.readthedocs.io/en/latest/format.html
- Sphinx: https://www.sphinx-doc.org/en/master/usage/domains/python.html#info-field-lists
"""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, field


@dataclass(slots=True)
class Docstring:
    """A parsed docstring.

    Args:
        description: The text without the sections on parameters.
        parameters: The text on each parameter, by name; stars are stripped.
    """

    description: str = ""
    parameters: dict[str, str] = field(default_factory=dict)


_GOOGLE_HEADER = re.compile(
    r"(?:args|arguments|parameters|params|other parameters|keyword (?:args|arguments)):\s*$", re.IGNORECASE
)
_NUMPY_HEADER = re.compile(r"(?:other )?parameters\s*$", re.IGNORECASE)
_NUMPY_RULE = re.compile(r"-{3,}\s*$")
_SPHINX_FIELD = re.compile(
    r":(?P<field>param|parameter|arg|argument|key|keyword|type)\s+(?:[^:]*\s)?\*{0,2}(?P<name>\w+)\s*:(?P<text>.*)$"
)
# "name: text", "name (type): text"; the type may contain brackets
_GOOGLE_ENTRY = re.compile(r"\*{0,2}(?P<name>\w+)\s*(?:\((?:[^()]|\([^()]*\))*\))?\s*:(?:\s+|$)(?P<text>.*)$")
# "name", "name : type", "first, second : type"
_NUMPY_ENTRY = re.compile(r"(?P<names>\*{0,2}\w+(?:\s*,\s*\*{0,2}\w+)*)\s*(?::.*)?$")


def parse_docstring(text: str | None) -> Docstring:
    """Parse a docstring; sections that are not about parameters stay in the description."""
    result = Docstring()
    if not text:
        return result
    lines = inspect.cleandoc(text).splitlines()
    kept: list[str] = []
    at = 0
    while at < len(lines):
        line = lines[at]
        if _GOOGLE_HEADER.match(line):
            flat = at == 0 and len(lines) > 1 and not _indent(lines[1])  # cleandoc removed the indentation
            end = _end_of_block(lines, at + 1, above=-1 if flat else 0)
            _read_google(lines[at + 1 : end], result.parameters)
        elif _is_numpy_header(lines, at):
            end = _end_of_numpy(lines, at + 2)
            _read_numpy(lines[at + 2 : end], result.parameters)
        elif match := _SPHINX_FIELD.match(line.strip()):
            end = _end_of_block(lines, at + 1, above=_indent(line), blank_ends=True)
            if match["field"] != "type":
                result.parameters[match["name"]] = _joined([match["text"], *lines[at + 1 : end]])
        else:
            kept.append(line)
            end = at + 1
        at = end
    result.description = re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip()
    return result


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _joined(lines: list[str]) -> str:
    return " ".join(part for line in lines if (part := line.strip()))


def _end_of_block(lines: list[str], start: int, *, above: int, blank_ends: bool = False) -> int:
    """The index of the first line that is not indented by more than `above`; blank lines do not end a
    block.
    """
    for at in range(start, len(lines)):
        if not lines[at].strip():
            if blank_ends:
                return at
        elif _indent(lines[at]) <= above:
            return at
    return len(lines)


def _is_numpy_header(lines: list[str], at: int) -> bool:
    return (
        at + 1 < len(lines)
        and _NUMPY_HEADER.match(lines[at]) is not None
        and _NUMPY_RULE.match(lines[at + 1]) is not None
    )


def _end_of_numpy(lines: list[str], start: int) -> int:
    """The end of a NumPy section: the next underlined header, or the beginning of plain text."""
    for at in range(start, len(lines)):
        line = lines[at]
        if not line.strip() or _indent(line):
            continue
        underlined = at + 1 < len(lines) and _NUMPY_RULE.match(lines[at + 1])
        if underlined or _NUMPY_ENTRY.match(line) is None:
            return at
    return len(lines)


def _read_google(lines: list[str], into: dict[str, str]) -> None:
    margin = min((_indent(line) for line in lines if line.strip()), default=0)
    entry: list[str] = []
    name = ""
    for line in [*lines, ""]:
        match = _GOOGLE_ENTRY.match(line.strip()) if _indent(line) == margin else None
        if match:
            if name:
                into[name] = _joined(entry)
            name, entry = match["name"], [match["text"]]
        else:
            entry.append(line)
    if name:
        into[name] = _joined(entry)


def _read_numpy(lines: list[str], into: dict[str, str]) -> None:
    names: list[str] = []
    entry: list[str] = []
    for line in lines:
        if line.strip() and not _indent(line):
            into.update((name, _joined(entry)) for name in names)
            match = _NUMPY_ENTRY.match(line)
            names = [part.strip().lstrip("*") for part in match["names"].split(",")] if match else []
            entry = []
        else:
            entry.append(line)
    into.update((name, _joined(entry)) for name in names)
