"""The tools that Anthropic runs itself, for the `tools` of an agent."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from kern._numbers import check_whole
from kern._secrets import Masked
from kern.errors import UsageError
from kern.tools.server_tool import ServerTool

API = "anthropic-messages"


class AnthropicTool(ServerTool):
    """The base class of tools that Anthropic runs."""

    api = API
    beta: ClassVar[str | None] = None
    """The value of the header "anthropic-beta" that the tool needs; None: none."""

    @abstractmethod
    def definition(self) -> dict[str, Any]:
        """The tool in a request's JSON."""


@dataclass(frozen=True, kw_only=True)
class _Web(AnthropicTool):
    """The common settings of the two web tools."""

    max_uses: int | None = None
    allowed_domains: Sequence[str] | None = None
    blocked_domains: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if self.allowed_domains and self.blocked_domains:
            raise UsageError(f"{type(self).__name__}: pass allowed_domains or blocked_domains, not both")
        for name in ("max_uses", "max_content_tokens"):
            if (given := getattr(self, name, None)) is not None:
                check_whole(f"{type(self).__name__}: {name}", given, 1)

    def _limits(self) -> dict[str, Any]:
        domains = {
            name: list(value)
            for name in ("allowed_domains", "blocked_domains")
            if (value := getattr(self, name))
        }
        return domains if self.max_uses is None else {"max_uses": self.max_uses, **domains}


@dataclass(frozen=True, kw_only=True)
class WebSearch(_Web):
    """Lets the model search the web; the answer cites the results.

    Args:
        max_uses: How many searches one request may make.
        allowed_domains: Only results of these domains. Pass either this or `blocked_domains`.
        blocked_domains: No results of these domains.
        city, region, country, timezone: The user's approximate location; the country as its two-letter code.
        version: The version of the tool, as its date in Anthropic's documentation.
    """

    city: str | None = None
    region: str | None = None
    country: str | None = None
    timezone: str | None = None
    version: str = "20250305"

    @property
    def name(self) -> str:
        """The tool's name."""
        return "web_search"

    def definition(self) -> dict[str, Any]:
        """The tool in a request's JSON."""
        data = {"type": f"web_search_{self.version}", "name": self.name, **self._limits()}
        place = {
            name: value
            for name in ("city", "region", "country", "timezone")
            if (value := getattr(self, name)) is not None
        }
        if place:
            data["user_location"] = {"type": "approximate", **place}
        return data


@dataclass(frozen=True, kw_only=True)
class WebFetch(_Web):
    """Lets the model read pages and PDFs whose URLs occur in the conversation.

    Args:
        max_uses: How many pages one request may read.
        allowed_domains: Only pages of these domains. Pass either this or `blocked_domains`.
        blocked_domains: No pages of these domains.
        citations: Let the answer cite the pages.
        max_content_tokens: How many tokens to read of a page at most.
        version: The version of the tool, as its date in Anthropic's documentation.
    """

    citations: bool = False
    max_content_tokens: int | None = None
    version: str = "20250910"

    @property
    def name(self) -> str:
        """The tool's name."""
        return "web_fetch"

    def definition(self) -> dict[str, Any]:
        """The tool in a request's JSON."""
        data = {"type": f"web_fetch_{self.version}", "name": self.name, **self._limits()}
        if self.citations:
            data["citations"] = {"enabled": True}
        if self.max_content_tokens is not None:
            data["max_content_tokens"] = self.max_content_tokens
        return data


@dataclass(frozen=True, kw_only=True)
class CodeExecution(AnthropicTool):
    """Lets the model run commands and Python in a container at Anthropic, which later requests of the
    conversation reuse until it expires.

    Args:
        version: The version of the tool, as its date in Anthropic's documentation.
    """

    version: str = "20250825"

    @property
    def name(self) -> str:
        """The tool's name."""
        return "code_execution"

    def definition(self) -> dict[str, Any]:
        """The tool in a request's JSON."""
        return {"type": f"code_execution_{self.version}", "name": self.name}


@dataclass(frozen=True, kw_only=True)
class ToolSearch(AnthropicTool):
    """Lets the model search the agent's own tools; it sees only those that it found.

    Args:
        by: How to search: with words ("bm25") or regular expressions ("regex").
        loaded: The names of tools that the model sees without a search.
    """

    by: Literal["bm25", "regex"] = "bm25"
    loaded: Collection[str] = ()

    @property
    def name(self) -> str:
        """The tool's name."""
        return f"tool_search_tool_{self.by}"

    def definition(self) -> dict[str, Any]:
        """The tool in a request's JSON."""
        return {"type": f"{self.name}_20251119", "name": self.name}


@dataclass(frozen=True)
class MCPServer(AnthropicTool):
    """An MCP server that Anthropic calls itself, over HTTP.

    For a server that Kern calls see `kern.tools.mcp`.

    Args:
        label: A name for the server.
        url: The server's https address.
        authorization_token: The OAuth token for the server.
        allowed_tools: The only tools of the server that the model may call; None: all.
    """

    label: str
    url: str
    authorization_token: str | None = field(default=None, repr=False, kw_only=True)
    allowed_tools: Collection[str] | None = field(default=None, kw_only=True)

    beta: ClassVar[str | None] = "mcp-client-2025-11-20"

    @property
    def name(self) -> str:
        """The tool's name; its colon keeps it different from every function's."""
        return f"mcp:{self.label}"

    @property
    def token(self) -> Masked | None:
        """The masked OAuth token."""
        return None if self.authorization_token is None else Masked(self.authorization_token)

    def definition(self) -> dict[str, Any]:
        """The server's tools as JSON for the request."""
        data: dict[str, Any] = {"type": "mcp_toolset", "mcp_server_name": self.label}
        if self.allowed_tools is not None:
            data["default_config"] = {"enabled": False}
            data["configs"] = {tool: {"enabled": True} for tool in self.allowed_tools}
        return data

    def server(self) -> dict[str, Any]:
        """The server as JSON for the list "mcp_servers" of the request."""
        data = {"type": "url", "name": self.label, "url": self.url}
        return data if self.token is None else {**data, "authorization_token": self.token}
