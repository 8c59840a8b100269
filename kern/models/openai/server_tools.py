"""The tools that OpenAI runs itself, for the `tools` of agents with `OpenAIResponses`.

Source of their settings: https://platform.openai.com/docs/guides/tools
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal

from kern._numbers import check_whole
from kern.errors import UsageError
from kern.tools import ServerTool

API = "openai-responses"


@dataclass(frozen=True, kw_only=True)
class OpenAITool(ServerTool):
    """The base class of tools that OpenAI runs. Subclass it for a tool that Kern does not have.

    A subclass sets `type`; its fields are the tool's settings. Fields that are None are not sent.
    """

    api: ClassVar[str] = API
    type: ClassVar[str]
    """The tool's type in a request."""
    includes: ClassVar[Sequence[str]] = ()
    """Further data for the answer to contain; see `include` in OpenAI's documentation."""

    @property
    def name(self) -> str:
        """The tool's name, which is its type."""
        return self.type

    def definition(self) -> dict[str, Any]:
        """The tool in a request's JSON."""
        given = {item.name: getattr(self, item.name) for item in fields(self)}
        return {
            "type": self.type,
            **{name: _json(value) for name, value in given.items() if value is not None},
        }

    def choice(self) -> dict[str, Any]:
        """The `tool_choice` that makes the model call the tool."""
        return {"type": self.type}


@dataclass(frozen=True, kw_only=True)
class WebSearch(OpenAITool):
    """Lets the model search the web; the answer cites the results.

    Args:
        allowed_domains: Only pages of these domains, such as "python.org".
        search_context_size: How much of the results the model reads.
        user_location: The user's location, such as {"country": "DE", "city": "Berlin"}.
        external_web_access: False: only pages in OpenAI's cache.
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
    """Lets the model search the files in vector stores; the answer cites them.

    Args:
        vector_store_ids: The ids of the vector stores.
        max_num_results: How many passages the model receives.
        filters: Conditions on the files' attributes, in OpenAI's format.
        ranking_options: How to rank passages, in OpenAI's format.
    """

    type: ClassVar[str] = "file_search"
    includes: ClassVar[Sequence[str]] = ("file_search_call.results",)
    vector_store_ids: Sequence[str]
    max_num_results: int | None = None
    filters: Mapping[str, Any] | None = None
    ranking_options: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.max_num_results is not None:
            check_whole("FileSearch: max_num_results", self.max_num_results, 1)


@dataclass(frozen=True, kw_only=True)
class CodeInterpreter(OpenAITool):
    """Lets the model run Python in a container at OpenAI.

    Args:
        container: The id of an existing container; None: a new one.
        file_ids: OpenAI's ids of files to put into a new container.
        memory_limit: The memory of a new container.
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
    """Lets the model generate images, which are in the output's `images`.

    Args:
        model: The model that generates the images.
        size: The size, such as "1024x1024".
        quality, background, output_format, output_compression, input_fidelity, moderation: As OpenAI
            documents them.
        action: Generate new images, edit those of the conversation, or let the model decide.
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

    def __post_init__(self) -> None:
        if self.output_compression is not None:
            check_whole("ImageGeneration: output_compression", self.output_compression, 0, 100)


@dataclass(frozen=True, kw_only=True)
class RemoteMCP(OpenAITool):
    """An MCP server that OpenAI calls, without any approval: allow only tools for which that is acceptable.

    Args:
        server_label: The server's name for the model, and the tool's name.
        server_url: The server's address. Pass either this or `connector_id`.
        connector_id: The id of one of OpenAI's connectors.
        server_description: What the server is for; the model reads it.
        authorization: The access token that OpenAI sends to the server.
        headers: Further headers that OpenAI sends to the server.
        allowed_tools: The only tools of the server that the model may call; None: all.
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
            raise UsageError("RemoteMCP needs exactly one of server_url and connector_id")

    @property
    def name(self) -> str:
        """The server's label."""
        return self.server_label

    def definition(self) -> dict[str, Any]:
        """The tool in a request's JSON."""
        return super().definition() | {"require_approval": "never"}

    def choice(self) -> dict[str, Any]:
        """The `tool_choice` that makes the model call the server."""
        return {"type": self.type, "server_label": self.server_label}


def includes_of(tools: Sequence[ServerTool]) -> list[str]:
    """The `include` list for these tools, without duplicates."""
    return sorted({name for tool in tools if isinstance(tool, OpenAITool) for name in tool.includes})


def choice_of(name: str, tools: Sequence[ServerTool]) -> dict[str, Any] | None:
    """The `tool_choice` for the OpenAI tool with this name; None if there is none."""
    chosen = (tool.choice() for tool in tools if isinstance(tool, OpenAITool) and tool.name == name)
    return next(chosen, None)


def _json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
