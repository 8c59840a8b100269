"""OpenAI's models, and the servers that speak its protocols."""

from kern.models.openai.chat import OpenAIChat
from kern.models.openai.responses import OpenAIResponses

__all__ = ["OpenAIChat", "OpenAIResponses"]
