"""OpenAI's models, models of compatible servers, and the tools that OpenAI runs itself."""

from kern.models.openai.chat import OpenAIChat
from kern.models.openai.responses import OpenAIResponses
from kern.models.openai.server_tools import (
    CodeInterpreter,
    FileSearch,
    ImageGeneration,
    OpenAITool,
    RemoteMCP,
    WebSearch,
)

__all__ = [
    "CodeInterpreter",
    "FileSearch",
    "ImageGeneration",
    "OpenAIChat",
    "OpenAIResponses",
    "OpenAITool",
    "RemoteMCP",
    "WebSearch",
]
