"""Tools: functions with a JSON schema and validated arguments, toolkits, and tools that a provider runs."""

from kern.tools.decorator import tool
from kern.tools.function import Function
from kern.tools.schema import strict_schema
from kern.tools.server_tool import ServerTool
from kern.tools.toolkit import Tool, Toolkit, ToolSource

__all__ = [
    "Function",
    "ServerTool",
    "Tool",
    "ToolSource",
    "Toolkit",
    "strict_schema",
    "tool",
]
