"""Anthropic's Messages API, for Claude models."""

from kern.models.anthropic.messages import AnthropicMessages

__all__ = ["AnthropicMessages"]
