"""Anthropic's Messages API, for Claude models."""

from kern.models.anthropic.messages import AnthropicMessages
from kern.models.anthropic.tools import CodeExecution, MCPServer, ToolSearch, WebFetch, WebSearch

__all__ = [
    "AnthropicMessages",
    "CodeExecution",
    "MCPServer",
    "ToolSearch",
    "WebFetch",
    "WebSearch",
]
