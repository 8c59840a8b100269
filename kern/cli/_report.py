"""Prints the output of commands: titles, headings, labelled lines, the session state, errors."""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from collections.abc import Mapping
from typing import Any

_LABEL = 11
_WIDEST = 100
_NARROWEST = 2 * _LABEL


def title(text: str) -> None:
    """Print the title, wrapped to the terminal."""
    _print("\n".join(textwrap.wrap(text, _width())))


def heading(text: str) -> None:
    """Print a heading with a rule across the terminal."""
    rule = "─" * max(3, shutil.get_terminal_size().columns - len(text) - 4)
    _print(f"\n{_bold(f'── {text}')} {rule}\n")


def fact(label: str, text: str) -> None:
    """Print a text with a label, wrapped with a hanging indent."""
    lines = textwrap.wrap(text, _width() - _LABEL, break_on_hyphens=False, break_long_words=False) or [""]
    if any(
        len(line) > _width() - _LABEL for line in lines
    ):  # a path is never broken: it has a line of its own
        _print(_bold(label))
        lines = textwrap.wrap(text, _width(), break_on_hyphens=False, break_long_words=False)
        _print("\n".join(lines))
        return
    _print(f"{_bold(label.ljust(_LABEL))}{lines[0]}")
    for line in lines[1:]:
        _print(f"{'':{_LABEL}}{line}")


def state_fact(label: str, state: Mapping[str, Any]) -> None:
    """Print the session state as JSON, with a label."""
    fact(label, json.dumps(state, ensure_ascii=False))


def report(text: str) -> None:
    """Print a line that says what the command did."""
    _print(text)


def say(text: str) -> None:
    """Print the error of a failed command to stderr, on one line."""
    print(f"kern: {' '.join(text.split())}", file=sys.stderr)


def _width() -> int:
    return max(_NARROWEST, min(_WIDEST, shutil.get_terminal_size().columns))


def _bold(text: str) -> str:
    return f"\x1b[1m{text}\x1b[0m" if sys.stdout.isatty() and os.environ.get("TERM") != "dumb" else text


def _print(text: str) -> None:
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding), flush=True)
