"""Models by name: "provider:id".

Other packages add providers with an entry point in the group "kern.models". Its name is the provider; it
refers to a callable, usually a class, that takes the model's id and returns a `Model`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from difflib import get_close_matches
from functools import cache, partial
from importlib import import_module
from typing import TYPE_CHECKING

from kern._habits import provider_of
from kern.errors import UsageError
from kern.models.base import Model
from kern.models.servers import SERVERS

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint, EntryPoints

_PROVIDERS = {
    "google": ("kern.models.google", "Gemini"),
    "openai": ("kern.models.openai", "OpenAIResponses"),
    "openai-chat": ("kern.models.openai", "OpenAIChat"),
    "anthropic": ("kern.models.anthropic", "AnthropicMessages"),
    "bedrock": ("kern.models.bedrock", "BedrockConverse"),
}
"""Module and class by provider; only the providers that an application uses are loaded."""

_CHAT = "openai-chat"
"""The provider whose class is used for all of `kern.models.servers`."""

GROUP = "kern.models"
"""The group of entry points with which other packages add providers."""

_VARIABLE = "KERN_MODEL"
_DEFAULT = "openai:gpt-5.2"


def resolve(name: str) -> Model:
    """Make the model with this name.

    Args:
        name: "provider:id", such as "openai:gpt-5.2", "anthropic:claude-sonnet-4-6", "ollama:llama3.2" or
            "groq:openai/gpt-oss-120b". The id is what follows the first colon. Use "openai-chat:..." for any
            other server with OpenAI's chat protocol, whose address is in the variable OPENAI_BASE_URL.

    Raises:
        UsageError: The provider is unknown, or the name has no id.
    """
    make, model_id = _looked_up(name)
    return make(model_id)


def load(name: str | None) -> None:
    """Import what `resolve(name)`, or without a name `default_model()`, needs.

    The import takes a while, and should happen when an application starts, not in its event loop. The name in
    the environment is not checked here: it may change before a run needs it.

    Raises:
        UsageError: The provider is unknown, or the name has no id.
    """
    if name is not None:
        _looked_up(name)
        return
    with suppress(UsageError):
        _looked_up(os.environ.get(_VARIABLE) or _DEFAULT)


def default_model() -> Model:
    """Return the model of agents without a model: the one in the variable KERN_MODEL, or OpenAI's gpt-5.2.

    Raises:
        UsageError: The variable does not name a known model.
    """
    try:
        return resolve(os.environ.get(_VARIABLE) or _DEFAULT)
    except UsageError as error:
        raise UsageError(f"the environment variable {_VARIABLE}: {error}") from error


def _looked_up(name: str) -> tuple[Callable[[str], Model], str]:
    provider, _, model_id = name.partition(":")
    make = _maker(provider) if provider and model_id else None
    if make is None:
        names = [*_PROVIDERS, *(server for server in SERVERS if server not in _PROVIDERS), *_added()]
        if not model_id:  # written with a slash, as by other libraries
            before, _, after = name.partition("/")
            provider, model_id = (before, after) if before in names else (provider, model_id)
        near = get_close_matches(provider.lower(), names, n=1) if model_id else []
        guessed = provider_of(name)
        hint = f', such as "{guessed}:{name}"' if guessed in names else ""
        meant = f'; did you mean "{near[0]}:{model_id}"?' if near else f"{hint};"
        known = ", ".join(f'"{known}:..."' for known in names)
        raise UsageError(f'no model {name!r}: it is written "provider:id"{meant} known: {known}')
    return make, model_id


@cache  # entry points are read from files, which no run should have to do again
def _maker(provider: str) -> Callable[[str], Model] | None:
    """Return the callable that makes the models of a provider; None if the provider is unknown."""
    if provider in _PROVIDERS:
        module, class_name = _PROVIDERS[provider]
        make: Callable[[str], Model] = getattr(import_module(module), class_name)
        return make
    if provider in SERVERS:
        module, class_name = _PROVIDERS[_CHAT]
        return partial(getattr(import_module(module), class_name), server=provider)
    for added in _entry_points().select(name=provider):
        return _loaded(added)
    return None


@cache
def _added() -> list[str]:
    return sorted({added.name for added in _entry_points()} - _PROVIDERS.keys() - SERVERS.keys())


def _entry_points() -> EntryPoints:
    from importlib.metadata import entry_points  # takes 6 ms to import, and few applications add a provider

    return entry_points(group=GROUP)


def _loaded(added: EntryPoint) -> Callable[[str], Model]:
    try:
        make = added.load()
    except Exception as error:
        package = added.dist.name if added.dist is not None else added.module
        raise UsageError(
            f"the provider {added.name!r}, which the package {package!r} adds, cannot be loaded: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not callable(make):
        raise UsageError(f"the provider {added.name!r} is not a callable that makes a model: {added.value}")
    return _checked(added.name, make)


def _checked(provider: str, make: Callable[[str], object]) -> Callable[[str], Model]:
    def made(model_id: str) -> Model:
        model = make(model_id)
        if not isinstance(model, Model):
            raise UsageError(
                f"the provider {provider!r} returned a {type(model).__name__}, which is not a Model"
            )
        return model

    return made
