"""A model by its name: "provider:id"."""

from __future__ import annotations

import os
from collections.abc import Callable

from kern.errors import UsageError
from kern.models.base import Model
from kern.models.openai import OpenAIChat, OpenAIResponses

_PROVIDERS: dict[str, Callable[[str], Model]] = {
    "openai": OpenAIResponses,
    "openai-chat": OpenAIChat,
}


def resolve(name: str) -> Model:
    """The model that `name` stands for.

    Args:
        name: "provider:id", such as "openai:gpt-5.2", or "openai-chat:llama3.2" for a server that speaks
            OpenAI's chat protocol, found by the variable OPENAI_BASE_URL. What follows the first
            colon is the id.

    Raises:
        UsageError: There is no such provider, or no id.
    """
    provider, _, model_id = name.partition(":")
    make = _PROVIDERS.get(provider)
    if make is None or not model_id:
        known = ", ".join(f'"{known}:..."' for known in _PROVIDERS)
        raise UsageError(f'no model {name!r}: it is written "provider:id"; known: {known}')
    return make(model_id)


def default_model() -> Model:
    """The model of an agent that was given none: what the variable KERN_MODEL says, or OpenAI's gpt-5.2."""
    name = os.environ.get("KERN_MODEL")
    return resolve(name) if name else OpenAIResponses("gpt-5.2")
