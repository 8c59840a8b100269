"""The tools that Anthropic runs itself: in the `tools` of an agent, beside its own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from kern._secrets import Masked
from kern.errors import UsageError
from kern.tools.server_tool import ServerTool

API = "anthropic-messages"


class AnthropicTool(ServerTool):
    """A tool that Anthropic runs."""

    api = API
    beta: ClassVar[str | None] = None
    """What the header "anthropic-beta" has to say for it."""

    @abstractmethod
    def definition(self) -> dict[str, Any]:
        """The tool in a request's JSON."""


@dataclass(frozen=True, kw_only=True)
class _Web(AnthropicTool):
    """What the two tools for the web have in common."""

    max_uses: int | None = None
    allowed_domains: Sequence[str] | None = None
    blocked_domains: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if self.allowed_domains and self.blocked_domains:
            raise UsageError(f"{type(self).__name__} takes allowed_domains or blocked_domains, not both")

    def _limits(self) -> dict[str, Any]:
        domains = {
            name: list(value)
            for name in ("allowed_domains", "blocked_domains")
            if (value := getattr(self, name))
        }
        return domains if self.max_uses is None else {"max_uses": self.max_uses, **domains}


@dataclass(frozen=True, kw_only=True)
class WebSearch(_Web):
    """A search of the web, whose results the answer cites.

    Args:
        max_uses: How many searches one request may make.
        allowed_domains: Only results of these are used; or instead
        blocked_domains: results of these are not.
        city, region, country, timezone: Where the user is, roughly; the country by its two letters.
        version: The date of the tool's version.
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
    """Reads pages and PDFs whose addresses stand in the conversation.

    Args:
        max_uses: How many pages one request may read.
        allowed_domains: Only pages of these are read; or instead
        blocked_domains: pages of these are not.
        citations: The answer cites what was read.
        max_content_tokens: The most that is read of a page.
        version: The date of the tool's version.
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
    """Commands, files and Python in a container of Anthropic's, which later requests of the conversation use
    again until it expires.

    Args:
        version: The date of the tool's version.
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
    """A search among the agent's own tools: the model sees only those that it has found.

    Args:
        by: How it searches: by words ("bm25"), or with regular expressions ("regex").
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
    """An MCP server that Anthropic asks itself, over HTTP.

    For one that Kern asks, wherever it runs, see `kern.tools.mcp`.

    Args:
        label: A name for it.
        url: Its address, https.
        authorization_token: Its OAuth token.
        allowed_tools: The only ones of its tools that the model may call; None: all.
    """

    label: str
    url: str
    authorization_token: str | None = field(default=None, repr=False, kw_only=True)
    allowed_tools: Collection[str] | None = field(default=None, kw_only=True)

    beta: ClassVar[str | None] = "mcp-client-2025-11-20"

    @property
    def name(self) -> str:
        """A name that no function has."""
        return f"mcp:{self.label}"

    @property
    def token(self) -> Masked | None:
        """The token, which must never be shown."""
        return None if self.authorization_token is None else Masked(self.authorization_token)

    def definition(self) -> dict[str, Any]:
        """The server's tools in a request's JSON."""
        data: dict[str, Any] = {"type": "mcp_toolset", "mcp_server_name": self.label}
        if self.allowed_tools is not None:
            data["default_config"] = {"enabled": False}
            data["configs"] = {tool: {"enabled": True} for tool in self.allowed_tools}
        return data

    def server(self) -> dict[str, Any]:
        """The server itself, in the list "mcp_servers" of a request."""
        data = {"type": "url", "name": self.label, "url": self.url}
        return data if self.token is None else {**data, "authorization_token": self.token}
