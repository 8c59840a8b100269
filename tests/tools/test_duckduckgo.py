from __future__ import annotations

import json
import socket
import sys
from typing import Any

import ddgs
import pytest
from ddgs.exceptions import DDGSException

from kern.errors import MissingExtraError, ToolArgumentsError, ToolError, UsageError
from kern.tools.duckduckgo import DuckDuckGoTools
from kern.tools.toolkit import collect


class Engine:
    """Stands in for `ddgs.DDGS`: notes how it is made and asked."""

    made: list[dict[str, Any]] = []
    asked: list[tuple[str, str, dict[str, Any]]] = []
    answer: list[dict[str, str]] | Exception = [{"title": "Käse", "href": "https://example.org", "body": "…"}]

    def __init__(self, **options: Any) -> None:
        self.made.append(options)

    def text(self, query: str, **options: Any) -> list[dict[str, str]]:
        return self._answer("text", query, options)

    def news(self, query: str, **options: Any) -> list[dict[str, str]]:
        return self._answer("news", query, options)

    def _answer(self, category: str, query: str, options: dict[str, Any]) -> list[dict[str, str]]:
        self.asked.append((category, query, options))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> type[Engine]:
    class Fresh(Engine):
        made = []
        asked = []

    monkeypatch.setattr(ddgs, "DDGS", Fresh)
    return Fresh


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


async def test_it_can_be_made_on_an_event_loop() -> None:
    assert DuckDuckGoTools().name == "duckduckgo"


def test_both_tools_are_offered_unless_switched_off() -> None:
    assert list(collect([DuckDuckGoTools()])) == ["web_search", "search_news"]
    assert list(collect([DuckDuckGoTools(enable_news=False)])) == ["web_search"]
    assert list(collect([DuckDuckGoTools(exclude_tools=["web_search"])])) == ["search_news"]
    with pytest.raises(UsageError, match="exclude_tools names unknown tools: web"):
        DuckDuckGoTools(exclude_tools=["web"])


def test_the_model_is_told_of_query_and_number() -> None:
    web = collect([DuckDuckGoTools()])["web_search"]
    assert web.kind == "sync"
    assert web.description.startswith("Search the web.")
    assert web.parameters["properties"] == {
        "query": {"type": "string", "description": "What to search for."},
        "max_results": {
            "type": "integer",
            "description": "How many results to return.",
            "default": 5,
            "minimum": 1,
            "maximum": 50,
        },
    }
    with pytest.raises(ToolArgumentsError, match="max_results"):
        web.validate('{"query": "x", "max_results": 0}')


def test_a_web_search_passes_its_options_on_and_gives_json(engine: type[Engine]) -> None:
    tools = DuckDuckGoTools(
        modifier="site:example.org",
        timeout=7,
        verify_ssl=False,
        timelimit="w",
        region="de-de",
        backend="auto",
    )
    text = tools.web_search("cheese", 3)
    assert json.loads(text) == engine.answer
    assert "Käse" in text
    assert engine.made == [{"proxy": None, "timeout": 7, "verify": False}]
    options = {"region": "de-de", "timelimit": "w", "max_results": 3, "backend": "auto"}
    assert engine.asked == [("text", "site:example.org cheese", options)]


def test_a_news_search_has_no_modifier_and_the_fixed_number_wins(engine: type[Engine]) -> None:
    DuckDuckGoTools(modifier="site:example.org", fixed_max_results=2).search_news("cheese", 9)
    [(category, query, options)] = engine.asked
    assert (category, query, options["max_results"]) == ("news", "cheese", 2)
    assert options["backend"] == "duckduckgo"


def test_nothing_found_is_an_empty_list(engine: type[Engine]) -> None:
    engine.answer = DDGSException("No results found.")
    assert DuckDuckGoTools().web_search("cheese") == "[]"


@pytest.mark.parametrize("name", ["web_search", "search_news"])
def test_a_search_that_cannot_reach_anything_says_so(name: str, closed_port: int) -> None:
    tools = DuckDuckGoTools(proxy=f"http://127.0.0.1:{closed_port}", timeout=5)
    with pytest.raises(ToolError, match=r"the search for 'cheese' failed: .*onnect") as caught:
        getattr(tools, name)("cheese")
    assert caught.value.tool == name


def test_without_the_package_the_construction_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "ddgs")
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(MissingExtraError, match=r"pip install 'kern-agents\[duckduckgo\]'"):
        DuckDuckGoTools()
