"""`ServerTool`: a tool that the model's provider runs itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from kern.errors import UsageError


class ServerTool(ABC):
    """A tool that the provider runs itself: web search, code execution, file search, remote MCP servers.

    Put it into the `tools` list of an agent or a team. Kern does not run it; its calls appear as
    `ProviderCall`s in the model's message. Subclasses are frozen dataclasses of the tool's settings.
    """

    api: ClassVar[str]
    """The API that has the tool, such as "openai-responses"; see `Model.server_tool_api`."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The tool's name; it must differ from those of the agent's other tools."""

    @abstractmethod
    def definition(self) -> dict[str, Any]:
        """The tool as JSON for the request, in the format of its API."""


def server_tools(tools: Iterable[object]) -> list[ServerTool]:
    """The server tools in a `tools` list, without duplicates.

    Raises:
        UsageError: Two different ones have the same name.
    """
    found: dict[str, ServerTool] = {}
    for tool in tools:
        if isinstance(tool, ServerTool) and found.setdefault(tool.name, tool) != tool:
            raise UsageError(f"two tools are named {tool.name!r}: {found[tool.name]!r} and {tool!r}")
    return list(found.values())


def check_server_tools(tools: Sequence[ServerTool], api: str | None, model: object) -> None:
    """Check that the provider of a model runs these tools.

    Args:
        tools: The server tools of an agent or team.
        api: The model's `Model.server_tool_api`.
        model: The model, for the error text.

    Raises:
        UsageError: It does not.
    """
    for tool in tools:
        if tool.api != api:
            has = f"uses the API {api!r}" if api else "has no tools of its provider"
            raise UsageError(
                f"the tool {tool!r} needs a model of the API {tool.api!r}, but {model!r} {has}: "
                "leave the tool out, or choose another model"
            )
