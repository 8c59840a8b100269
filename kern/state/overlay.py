"""Merging of state dicts: a run's state is made of the default, the stored one and what the caller passes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kern.state.codec import copy


def deep_merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merge `over` into `base`: objects merge key by key, any other value is replaced.

    Keys keep the order of `base`; new keys follow. The result shares nothing with the arguments.

    Raises:
        InvalidStateError: One of them holds what is not JSON; `path` says where.
    """
    merged: dict[str, Any] = copy(dict(base))
    _lay_over(merged, copy(dict(over)))
    return merged


def fill(base: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Add the keys that `base` lacks from `defaults`, also inside objects that both have.

    Keys keep the order of `base`; added keys follow. The result shares nothing with the arguments.

    Raises:
        InvalidStateError: One of them holds what is not JSON; `path` says where.
    """
    filled: dict[str, Any] = copy(dict(base))
    _fill(filled, copy(dict(defaults)))
    return filled


def _lay_over(base: dict[str, Any], over: dict[str, Any]) -> None:
    for key, value in over.items():
        below = base.get(key)
        if isinstance(below, dict) and isinstance(value, dict):
            _lay_over(below, value)
        else:
            base[key] = value


def _fill(base: dict[str, Any], defaults: dict[str, Any]) -> None:
    for key, default in defaults.items():
        value = base.setdefault(key, default)
        if isinstance(value, dict) and isinstance(default, dict):
            _fill(value, default)
