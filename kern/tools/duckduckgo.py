"""Web and news search with DuckDuckGo, on the `ddgs` package: `pip install 'kern-agents[duckduckgo]'`."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from kern._numbers import check_seconds, check_whole
from kern.errors import MissingExtraError, ToolError
from kern.tools.toolkit import Toolkit

MaxResults = Annotated[int, Field(ge=1, le=50)]

# The text of the error that ddgs raises if an engine found nothing: https://github.com/deedy5/ddgs
_NOTHING_FOUND = "No results found."


class DuckDuckGoTools(Toolkit):
    """Web search and news search: the tools `web_search` and `search_news`.

    The functions block, so Kern calls them in a worker thread. Results are a JSON list of objects:
    title, href and body of a page; date, title, body, url, image and source of a news item.

    Args:
        enable_search: Offer `web_search`.
        enable_news: Offer `search_news`.
        modifier: A text to put before every web query, such as "site:python.org".
        fixed_max_results: The number of results; None: as many as the model asks for, at most 50.
        proxy: The URL of a proxy (http, https or socks5).
        timeout: How long a search engine may take to answer, in seconds.
        verify_ssl: Check the engines' certificates.
        timelimit: Only results of the last day ("d"), week, month or year.
        region: Country and language, such as "us-en".
        backend: The search engine, by its name in ddgs; several separated by commas, or "auto".
        include_tools: As in `Toolkit`.
        exclude_tools: As in `Toolkit`.

    Raises:
        MissingExtraError: The package `ddgs` is not installed.
    """

    def __init__(
        self,
        *,
        enable_search: bool = True,
        enable_news: bool = True,
        modifier: str | None = None,
        fixed_max_results: int | None = None,
        proxy: str | None = None,
        timeout: int = 10,
        verify_ssl: bool = True,
        timelimit: Literal["d", "w", "m", "y"] | None = None,
        region: str = "us-en",
        backend: str = "duckduckgo",
        include_tools: Sequence[str] | None = None,
        exclude_tools: Sequence[str] | None = None,
    ) -> None:
        if importlib.util.find_spec("ddgs") is None:
            raise MissingExtraError("ddgs", "duckduckgo")
        if fixed_max_results is not None:
            check_whole("fixed_max_results", fixed_max_results, 1)
        check_seconds("timeout", timeout, endless=False)
        self.modifier = modifier
        self.fixed_max_results = fixed_max_results
        self.proxy = proxy
        self.timeout = timeout
        self.verify_ssl = verify_ssl
        self.timelimit = timelimit
        self.region = region
        self.backend = backend
        chosen = ((enable_search, self.web_search), (enable_news, self.search_news))
        super().__init__(
            name="duckduckgo",
            tools=[tool for enabled, tool in chosen if enabled],
            include_tools=include_tools,
            exclude_tools=exclude_tools,
        )

    def web_search(self, query: str, max_results: MaxResults = 5) -> str:
        """Search the web.

        Args:
            query: What to search for.
            max_results: How many results to return.

        Returns:
            A JSON list of results, each with title, href and body.
        """
        query = f"{self.modifier} {query}" if self.modifier else query
        return self._search("web_search", "text", query, max_results)

    def search_news(self, query: str, max_results: MaxResults = 5) -> str:
        """Search the news.

        Args:
            query: What to search for.
            max_results: How many results to return.

        Returns:
            A JSON list of results, each with date, title, body, url and source.
        """
        return self._search("search_news", "news", query, max_results)

    def _search(self, tool: str, category: Literal["text", "news"], query: str, max_results: int) -> str:
        # Imported here, in the worker thread: the import is slow, and ddgs is optional
        from ddgs import DDGS
        from ddgs.exceptions import DDGSException

        engine = DDGS(proxy=self.proxy, timeout=self.timeout, verify=self.verify_ssl)
        search = engine.text if category == "text" else engine.news
        results: list[dict[str, Any]] = []
        try:
            results = search(
                query,
                region=self.region,
                timelimit=self.timelimit,
                max_results=self.fixed_max_results or max_results,
                backend=self.backend,
            )
        except DDGSException as error:
            if str(error) != _NOTHING_FOUND:
                raise ToolError(f"the search for {query!r} failed: {error}", tool=tool) from error
        return json.dumps(results, ensure_ascii=False)
