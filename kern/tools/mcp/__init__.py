"""The tools of MCP servers (https://modelcontextprotocol.io): `pip install 'kern-agents[mcp]'`."""

from kern.tools.mcp.tools import MCPTools

__all__ = ["MCPTools"]
