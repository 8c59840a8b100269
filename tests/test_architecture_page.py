"""The picture in docs/architecture.md shows the layers that `lint-imports` checks."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "site" / "architecture.svg"


def test_the_picture_has_every_package_in_the_order_of_the_layers() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    layers = [
        {name.strip() for name in layer.split("|")}
        for layer in contracts["contracts"][0]["layers"]
        if not layer.startswith("_error_text")  # small helpers, which are in no picture
    ]
    drawn = re.findall(r'class="name" [^>]*>(\w+)</text>', PICTURE.read_text(encoding="utf-8"))
    told = [{drawn.pop(0) for _ in range(min(len(layer), len(drawn)))} for layer in layers]
    assert told == layers
    assert drawn == []


def test_no_page_needs_a_script_of_the_network_to_show_a_diagram() -> None:
    pages = {page.name: page.read_text(encoding="utf-8") for page in (ROOT / "docs").glob("*.md")}
    assert [name for name, text in pages.items() if "```mermaid" in text] == []
