"""Tools that Bedrock runs itself. Pass them in the `tools` of an agent, beside its own.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_SystemTool.html
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from kern.tools.server_tool import ServerTool

API = "bedrock-converse"


@dataclass(frozen=True, slots=True)
class SystemTool(ServerTool):
    """A tool that is built into a model behind Bedrock.

    Args:
        tool: The name of the tool. Amazon's Nova 2 has "nova_grounding", a web search whose pages the answer
            cites, and "nova_code_interpreter".
    """

    tool: str
    api: ClassVar[str] = API

    @property
    def name(self) -> str:
        """The tool's name."""
        return self.tool

    def definition(self) -> dict[str, Any]:
        """The tool in a request."""
        return {"systemTool": {"name": self.tool}}
