"""The documentation as a site: built without a network, no dead link, every public name in the reference."""

from __future__ import annotations

import importlib
import os
import pkgutil
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import pytest

import kern

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
    command = [sys.executable, "-m", "mkdocs", "build", "-f", str(ROOT / ".ci" / "mkdocs.yml")]
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


def modules_of_the_reference() -> list[str]:
    text = "\n".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs/reference").glob("*.md"))
    named = re.findall(r"^::: (\S+)$", text, re.MULTILINE)
    paths = {name: ROOT / name.replace(".", "/") for name in named}
    return [name for name, path in paths.items() if path.is_dir() or path.with_suffix(".py").is_file()]


def public_names(module: ModuleType) -> dict[str, str]:
    """The public names of a module, each with the place where it is told of.

    A function that is named as its module stands under its whole name: the generator takes it for the module.
    """
    names = getattr(module, "__all__", None) or [
        key for key, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__
    ]
    places = {}
    for name in names:
        if not name.startswith("_"):
            value = getattr(module, name)
            own = f"{module.__name__}.{name}"
            places[name] = f"{own}.{name}" if getattr(value, "__module__", "") == own else own
    return places


@pytest.fixture(scope="module")
def places(site: Path) -> set[str]:
    return {
        place
        for page in (site / "reference").glob("*.html")
        for place in Links(page.read_text(encoding="utf-8")).places
    }


@pytest.mark.parametrize("name", modules_of_the_reference())
def test_every_public_name_is_in_the_reference(places: set[str], name: str) -> None:
    names = public_names(importlib.import_module(name))
    assert names
    assert [public for public, place in names.items() if place not in places] == []


def test_every_public_package_is_in_the_reference() -> None:
    inner = {"agent", "cli", "console", "runner", "runtime", "team"}  # `kern` has what is public of them
    packages = {module.name for module in pkgutil.iter_modules(kern.__path__) if module.name[0] != "_"}
    told = {name.partition(".")[2] for name in modules_of_the_reference()}
    assert packages - inner - told == set()


def test_the_list_for_machines_has_every_page_and_no_dead_link(site: Path) -> None:
    links = re.findall(r"\]\(([^)]+)\)", (site / "llms.txt").read_text(encoding="utf-8"))
    assert [link for link in links if not (site / link).is_file()] == []
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"index.md"}
    assert pages - set(links) == set()
