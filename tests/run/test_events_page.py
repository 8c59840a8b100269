"""docs/events.md has every event with its fields, and no other."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest

from kern.run.events import BaseRunEvent, Event

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "events.md").read_text(encoding="utf-8")
ROWS = dict(re.findall(r"^\| `([A-Z]\w+)` \| [^|]+ \|([^|]*)\|$", PAGE, re.MULTILINE))
CLASSES: dict[str, type[BaseRunEvent]] = {cls.kind: cls for cls in get_args(Event)}


def test_the_page_has_every_event_and_no_other() -> None:
    assert ROWS.keys() == CLASSES.keys()


@pytest.mark.parametrize("kind", CLASSES)
def test_the_page_has_every_field_of_an_event_and_no_other(kind: str) -> None:
    own = {field.name for field in fields(CLASSES[kind])} - {field.name for field in fields(BaseRunEvent)}
    named = re.findall(r"(?:^ |; )((?:`\w+`(?:, )?)+): ", ROWS[kind])
    assert {name for group in named for name in re.findall(r"`(\w+)`", group)} == own


def test_the_page_has_what_every_event_has() -> None:
    shared = PAGE.partition("## What every event has")[2].partition("\n## ")[0]
    attributes = {name for name in vars(BaseRunEvent) if not name.startswith("_")} - {"kind"}
    assert attributes - set(re.findall(r"`(\w+)(?:\(\))?`", shared)) == set()
