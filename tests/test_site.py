"""The documentation as a site: it is built without a network, has no dead link, and refers to every public name."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

pytest.importorskip("mkdocs", reason="mkdocs-material is not installed")

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.timeout(120)


class Links(HTMLParser):
    """The links of a page, and the places in it that others may point to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """See `HTMLParser`."""
        for name, value in attrs:
            if name == "href" and tag == "a" and value:
                self.links.append(value)
            if name == "id" and value:
                self.places.add(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "-q", "-f", str(ROOT / ".ci" / "mkdocs.yml")]
    done = subprocess.run(
        [*command, "-d", str(folder)],
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1", "HTTPS_PROXY": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_link_leads_somewhere(site: Path) -> None:
    pages = {page: Links(page.read_text(encoding="utf-8")) for page in site.rglob("*.html")}
    dead = []
    for page, found in pages.items():
        for link in found.links:
            if re.match(r"[a-z]+:", link) or page.name == "404.html":
                continue
            path, _, place = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            if target.is_dir():
                target /= "index.html"
            if not target.exists() or (place and target in pages and place not in pages[target].places):
                dead.append(f"{page.relative_to(site)}: {link}")
    assert dead == []


@pytest.mark.parametrize(
    "name",
    re.findall(
        r"^::: (\S+)$", "\n".join(p.read_text() for p in (ROOT / "docs/reference").glob("*.md")), re.MULTILINE
    ),
)
def test_every_public_name_is_in_the_reference(site: Path, name: str) -> None:
    places: set[str] = set()
    for page in (site / "reference").glob("*.html"):
        places |= Links(page.read_text(encoding="utf-8")).places
    module = importlib.import_module(name)
    documented = [public for public in module.__all__ if not public.startswith("__")]
    assert [public for public in documented if f"{name}.{public}" not in places] == []
