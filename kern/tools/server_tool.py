"""`ServerTool`: a tool that the model's provider runs itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from kern.errors import UsageError


class ServerTool(ABC):
    """A tool that the provider runs: a web search, code, files, an MCP server that it calls itself.

    In the `tools` list of an agent or a team it stands beside their own. Kern does not run it: a call of it
    is a `ProviderCall` in the model's message. A subclass is a frozen dataclass of the tool's settings.
    """

    api: ClassVar[str]
    """The API that knows the tool, such as "openai-responses": see `Model.server_tool_api`."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The tool's name, which no other tool of the agent may have."""

    @abstractmethod
    def definition(self) -> dict[str, Any]:
        """The tool in a request's JSON, as its API takes it."""


def server_tools(tools: Iterable[object]) -> list[ServerTool]:
    """Those of a `tools` list that the provider runs, the same tool once.

    Raises:
        UsageError: Two different ones have one name.
    """
    found: dict[str, ServerTool] = {}
    for tool in tools:
        if isinstance(tool, ServerTool) and found.setdefault(tool.name, tool) != tool:
            raise UsageError(f"two tools are called {tool.name!r}: {found[tool.name]!r} and {tool!r}")
    return list(found.values())


def check_server_tools(tools: Sequence[ServerTool], api: str | None, model: object) -> None:
    """See that a model can have its provider run those tools.

    Args:
        api: `Model.server_tool_api` of the model.

    Raises:
        UsageError: It cannot.
    """
    for tool in tools:
        if tool.api != api:
            has = f"{model!r} has those of {api!r}" if api else f"{model!r} has no such tools"
            raise UsageError(
                f"the tool {tool!r} is run by the API {tool.api!r}, and {has}: leave the tool out, "
                "or take a model of that API"
            )
