"""What mkdocs does for the site besides its own work.

- A link out of docs/ leads to a page that holds the linked file: `../tests/test_x.py` to
  `source/tests/test_x.py`, `../CONTRIBUTING.md` to the page `contributing`. So the site has no
  address of a repository in it.
- Each page stands beside its HTML as Markdown, too: that is what `llms.txt` points to,
  a list of the pages in the navigation for machines.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mkdocs.structure.files import File, Files

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
OUTWARD = re.compile(r"\]\(\.\./([^)#\s]+)(?=[)#\s])")
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LANGUAGES = {".py": "python", ".toml": "toml", ".md": "markdown"}


def page_of(path: str) -> str:
    """The page that holds a file of the repository."""
    if path == "CONTRIBUTING.md":
        return "contributing.md"
    return f"source/{path.rstrip('/')}.md"


def contributing() -> str:
    """CONTRIBUTING.md, with its links as seen from docs/."""
    return (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").replace("](docs/", "](")


def source_page(path: str) -> str:
    """A file, or all Python files of a folder, as a page that the search leaves out."""
    target = ROOT / path
    files = sorted(target.glob("*.py")) if target.is_dir() else [target]
    parts = ["---\nsearch: {exclude: true}\nhide: [toc]\n---\n", f"# `{path}`\n"]
    for file in files:
        if len(files) > 1:
            parts.append(f"## `{file.name}`\n")
        parts.append(
            f"``````{LANGUAGES.get(file.suffix, 'text')}\n{file.read_text(encoding='utf-8')}\n``````\n"
        )
    return "\n".join(parts)


def title_and_content(page: Path) -> tuple[str, str]:
    """The page's heading, and what it is about: its sections, or its first paragraph where it has none."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    title, _, rest = text.strip().partition("\n")
    sections = re.findall(r"^## (.+)$", text, re.MULTILINE)
    about = "; ".join(sections) or " ".join(rest.strip().split("\n\n")[0].split())
    return title.removeprefix("# ").replace("`", ""), re.sub(r"\[([^]]+)\]\([^)]*\)", r"\1", about)


def list_of_pages(nav: list[Any]) -> Iterator[str]:
    """The lines of `llms.txt` for a part of the navigation."""
    modules = (ROOT / "docs" / "reference" / "index.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"\]\((\S+)\): (.+)", modules))
    for entry in nav:
        item = {"": entry} if isinstance(entry, str) else entry
        for name, value in item.items():
            if isinstance(value, list):
                yield f"\n## {name}\n"
                yield from list_of_pages(value)
            elif value == "index.md":
                continue
            elif value.startswith("reference/"):
                about = told.get(value.removeprefix("reference/"), "made from the docstrings")
                yield f"- [{name or 'Reference'}]({value.removesuffix('.md')}.html): {about}"
            else:
                path = ROOT / "CONTRIBUTING.md" if value == "contributing.md" else ROOT / "docs" / value
                title, about = title_and_content(path)
                yield f"- [{title}]({value}): {about}"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the files that pages link to."""
    pages = [file for file in files.documentation_pages() if "/" not in file.src_uri]
    linked = {path for file in pages for path in OUTWARD.findall(file.content_string)}
    for path in sorted(linked | {"CONTRIBUTING.md"}):
        content = contributing() if path == "CONTRIBUTING.md" else source_page(path)
        files.append(File.generated(config, page_of(path), content=content))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Let links out of docs/ lead to those pages; the first page has no menu beside it."""
    if page.is_homepage:
        page.meta["hide"] = ["navigation", "toc"]
    if "/" in page.file.src_uri:
        return markdown
    return OUTWARD.sub(lambda found: f"]({page_of(found[1])}", markdown)


def on_post_build(config: MkDocsConfig, **_: object) -> None:
    """Put the Markdown of each page beside its HTML, and the list of them into `llms.txt`."""
    site = Path(config.site_dir)
    for page in Path(config.docs_dir).glob("*.md"):
        shutil.copy(page, site / page.name)
    shutil.copy(ROOT / "CONTRIBUTING.md", site / "contributing.md")
    head = f"# {config.site_name}\n\n> {config.site_description}\n"
    (site / "llms.txt").write_text(head + "\n".join(list_of_pages(config.nav or [])) + "\n", encoding="utf-8")
