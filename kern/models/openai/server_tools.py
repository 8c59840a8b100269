"""The tools that OpenAI runs itself, for `OpenAIResponses`.

Their settings: https://platform.openai.com/docs/guides/tools
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal

from kern.errors import UsageError
from kern.tools import ServerTool

API = "openai-responses"


@dataclass(frozen=True, kw_only=True)
class OpenAITool(ServerTool):
    """A tool that OpenAI runs: the base of those that Kern knows, and of one's own for others.

    A subclass names its `type`; its fields are the tool's settings, those that are None are left out.
    """

    api: ClassVar[str] = API
    type: ClassVar[str]
    """The tool's type in a request."""
    includes: ClassVar[Sequence[str]] = ()
    """What the answer is to hold besides; see `include` in OpenAI's documentation."""

    @property
    def name(self) -> str:
        """The tool's type, which is its name, too."""
        return self.type

    def definition(self) -> dict[str, Any]:
        """The tool in a request's JSON."""
        given = {item.name: getattr(self, item.name) for item in fields(self)}
        return {
            "type": self.type,
            **{name: _json(value) for name, value in given.items() if value is not None},
        }

    def choice(self) -> dict[str, Any]:
        """The `tool_choice` that has the model call it."""
        return {"type": self.type}


@dataclass(frozen=True, kw_only=True)
class WebSearch(OpenAITool):
    """The model searches the web, and cites what it found.

    Args:
        allowed_domains: Only pages of these, such as "python.org".
        search_context_size: How much of what is found the model reads.
        user_location: Where the user is, such as {"country": "DE", "city": "Berlin"}.
        external_web_access: False: only pages that OpenAI has in its cache.
    """

    type: ClassVar[str] = "web_search"
    includes: ClassVar[Sequence[str]] = ("web_search_call.action.sources",)
    allowed_domains: Sequence[str] | None = None
    search_context_size: Literal["low", "medium", "high"] | None = None
    user_location: Mapping[str, str] | None = None
    external_web_access: bool | None = None

    def definition(self) -> dict[str, Any]:
        """The tool in a request's JSON."""
        data = super().definition()
        if (domains := data.pop("allowed_domains", None)) is not None:
            data["filters"] = {"allowed_domains": domains}
        if self.user_location is not None:
            data["user_location"] = {"type": "approximate", **self.user_location}
        return data


@dataclass(frozen=True, kw_only=True)
class FileSearch(OpenAITool):
    """The model searches the files of vector stores, and cites them.

    Args:
        vector_store_ids: The stores.
        max_num_results: How many pieces it gets.
        filters: Which files, by their attributes.
        ranking_options: How pieces are chosen.
    """

    type: ClassVar[str] = "file_search"
    includes: ClassVar[Sequence[str]] = ("file_search_call.results",)
    vector_store_ids: Sequence[str]
    max_num_results: int | None = None
    filters: Mapping[str, Any] | None = None
    ranking_options: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class CodeInterpreter(OpenAITool):
    """The model writes Python, and OpenAI runs it.

    Args:
        container: The id of a container; None: one is made.
        file_ids: OpenAI's ids of the files that are put into one that is made.
        memory_limit: The memory of one that is made.
    """

    type: ClassVar[str] = "code_interpreter"
    includes: ClassVar[Sequence[str]] = ("code_interpreter_call.outputs",)
    container: str | None = None
    file_ids: Sequence[str] | None = None
    memory_limit: Literal["1g", "4g", "16g", "64g"] | None = None

    def definition(self) -> dict[str, Any]:
        """The tool in a request's JSON."""
        made = super().definition() | {"type": "auto"}
        made.pop("container", None)
        return {"type": self.type, "container": made if self.container is None else self.container}


@dataclass(frozen=True, kw_only=True)
class ImageGeneration(OpenAITool):
    """The model has pictures made; they are in the output's `images`.

    Args:
        model: The model that makes them.
        size: Such as "1024x1024".
        quality, background, output_format, output_compression, input_fidelity, moderation: As OpenAI
            documents them.
        action: Whether it makes new ones, or edits those of the conversation.
    """

    type: ClassVar[str] = "image_generation"
    model: str | None = None
    size: str | None = None
    quality: Literal["low", "medium", "high", "xhigh", "max", "auto"] | None = None
    background: Literal["transparent", "opaque", "auto"] | None = None
    output_format: Literal["png", "webp", "jpeg"] | None = None
    output_compression: int | None = None
    input_fidelity: Literal["high", "low"] | None = None
    moderation: Literal["auto", "low"] | None = None
    action: Literal["generate", "edit", "auto"] | None = None


@dataclass(frozen=True, kw_only=True)
class RemoteMCP(OpenAITool):
    """An MCP server that OpenAI calls. Nobody is asked before a call: allow only tools that may act so.

    Args:
        server_label: What the server is called; the tool's name, too.
        server_url: Its address.
        connector_id: Instead of an address: one of OpenAI's connectors.
        server_description: What it is good for.
        authorization: The token that OpenAI sends to it.
        headers: Further headers that OpenAI sends to it.
        allowed_tools: Only these of its tools.
    """

    type: ClassVar[str] = "mcp"
    server_label: str
    server_url: str | None = None
    connector_id: str | None = None
    server_description: str | None = None
    authorization: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] | None = field(default=None, repr=False)
    allowed_tools: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if (self.server_url is None) == (self.connector_id is None):
            raise UsageError("RemoteMCP takes a server_url or a connector_id, and not both")

    @property
    def name(self) -> str:
        """The server's label."""
        return self.server_label

    def definition(self) -> dict[str, Any]:
        """The tool in a request's JSON."""
        return super().definition() | {"require_approval": "never"}

    def choice(self) -> dict[str, Any]:
        """The `tool_choice` that has the model call the server."""
        return {"type": self.type, "server_label": self.server_label}


def includes_of(tools: Sequence[ServerTool]) -> list[str]:
    """What the answer is to hold for those tools, each once."""
    return sorted({name for tool in tools if isinstance(tool, OpenAITool) for name in tool.includes})


def choice_of(name: str, tools: Sequence[ServerTool]) -> dict[str, Any] | None:
    """The `tool_choice` for the tool of that name; None if OpenAI runs none."""
    chosen = (tool.choice() for tool in tools if isinstance(tool, OpenAITool) and tool.name == name)
    return next(chosen, None)


def _json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
