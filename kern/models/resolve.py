"""A model by its name: "provider:id"."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib import import_module

from kern.errors import UsageError
from kern.models.base import Model

_PROVIDERS = {
    "openai": ("kern.models.openai", "OpenAIResponses"),
    "openai-chat": ("kern.models.openai", "OpenAIChat"),
}
"""Module and class; only the providers that an application uses are loaded."""

_DEFAULT = "openai:gpt-5.2"


def resolve(name: str) -> Model:
    """The model that `name` stands for.

    Args:
        name: "provider:id", such as "openai:gpt-5.2", or "openai-chat:llama3.2" for a server that speaks
            OpenAI's chat protocol, found by the variable OPENAI_BASE_URL. What follows the first
            colon is the id.

    Raises:
        UsageError: There is no such provider, or no id.
    """
    make, model_id = _looked_up(name)
    return make(model_id)


@cache
def load(name: str | None) -> None:
    """Import what `resolve(name)`, or without a name `default_model()`, will need.

    It takes a while, which is better spent where an application is built than in its event loop. Says nothing
    of a name that is wrong.
    """
    with suppress(UsageError):
        _looked_up(name or _default_name())


def default_model() -> Model:
    """The model of an agent that was given none: what the variable KERN_MODEL says, or OpenAI's gpt-5.2."""
    return resolve(_default_name())


def _default_name() -> str:
    return os.environ.get("KERN_MODEL") or _DEFAULT


def _looked_up(name: str) -> tuple[Callable[[str], Model], str]:
    provider, _, model_id = name.partition(":")
    if provider not in _PROVIDERS or not model_id:
        known = ", ".join(f'"{known}:..."' for known in _PROVIDERS)
        raise UsageError(f'no model {name!r}: it is written "provider:id"; known: {known}')
    module, class_name = _PROVIDERS[provider]
    return getattr(import_module(module), class_name), model_id
