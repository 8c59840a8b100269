"""What an agent or team declares about the state of its sessions."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from kern._error_text import error_text
from kern.errors import InvalidStateError
from kern.state.codec import copy, same
from kern.state.merge import Conflict, Merged, Policies, merge
from kern.state.state_type import DICT, StateType

Migration = Callable[[dict[str, Any]], dict[str, Any]]
"""Takes the state that one version of the application wrote; returns the state for the next version."""

DEFAULTS = "state_defaults"
"""The author of the commit that adds the defaults of new fields to a typed state of an older version."""


_MIGRATION = re.compile(r"state_migrations\[(\d+)\]")


class Upgrade(NamedTuple):
    """One step of bringing a stored state up to date.

    Args:
        name: The author of its commit: "state_migrations[0]" or "state_defaults".
        tree: The state after it.
        version: The version of the state after it.
    """

    name: str
    tree: dict[str, Any]
    version: int


@dataclass(slots=True, frozen=True, kw_only=True)
class StateSpec:
    """What an agent or team declares about the state of its sessions.

    Args:
        default: Makes the state of a new session.
        state_type: Whether the application's functions see the state as a dict or as a model.
        migrations: The functions that upgrade a state; the one at index n takes version n to version n + 1.
        policies: Rules for values that two processes have changed, by place.
    """

    default: Callable[[], Mapping[str, Any]] = dict
    state_type: StateType = DICT
    migrations: Sequence[Migration] = ()
    policies: Policies = field(default_factory=dict)
    takes_anything: bool = field(init=False)
    """Whether every stored state fits: a plain dict without migrations."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "takes_anything", self.state_type is DICT and not self.migrations)

    @property
    def version(self) -> int:
        """The version of the states that the application writes now."""
        return len(self.migrations)

    def joined(self, other: StateSpec) -> StateSpec:
        """Combine two specs for a session that both are used on: the stricter spec with the policies of both.

        If both have a policy for a place, that of `other` is used.
        """
        if other is self:
            return self
        stricter = self if (other.takes_anything or other.version < self.version) else other
        return replace(stricter, policies={**self.policies, **other.policies})

    def upgrades(self, tree: dict[str, Any], version: int) -> list[Upgrade]:
        """The steps that bring a stored state up to the present version; `tree` itself is not changed.

        Args:
            tree: The stored state.
            version: Its version.

        Raises:
            InvalidStateError: A newer version of the application has written the state, a migration failed,
                or the result does not fit the state's type.
        """
        if self.takes_anything:
            return []
        if version > self.version:
            raise InvalidStateError(
                f"the stored state has version {version}, written by a newer version of the "
                f"application; this one has {self.version} state_migrations and cannot read it: "
                "deploy the newer version"
            )
        steps = []
        for index in range(version, self.version):
            tree = _migrated(self.migrations[index], tree, index)
            steps.append(Upgrade(migration_name(index), tree, index + 1))
        fitting = self.state_type.fit(tree)
        if not same(fitting, tree):
            steps.append(Upgrade(DEFAULTS, fitting, self.version))
        return steps

    def upgraded(self, tree: dict[str, Any], version: int) -> dict[str, Any]:
        """The state after all `upgrades`."""
        steps = self.upgrades(tree, version)
        return steps[-1].tree if steps else tree

    def merge(self, base: Any, theirs: Any, ours: Any) -> Merged:
        """Merge two states that were both made from `base`; see `kern.state.merge`.

        If the merged state does not fit the state's type, such as by a check over several fields, ours is
        taken as a whole: a session must never hold a state that cannot be loaded.
        """
        merged = merge(base, theirs, ours, self.policies)
        if self.state_type is DICT:
            return merged
        try:
            return Merged(self.state_type.fit(merged.value), merged.conflicts)
        except InvalidStateError:
            return Merged(ours, [*merged.conflicts, Conflict("", base, theirs, ours)])


def migration_name(index: int) -> str:
    """The author of the commit of a migration."""
    return f"state_migrations[{index}]"


def migration_index(name: str | None) -> int | None:
    """The reverse of `migration_name`; None if the author is not a migration."""
    match = _MIGRATION.fullmatch(name or "")
    return int(match[1]) if match else None


def _migrated(migration: Migration, tree: dict[str, Any], index: int) -> dict[str, Any]:
    name = migration_name(index)
    try:
        migrated = migration(copy(tree))
    except Exception as error:
        raise InvalidStateError(f"{name} failed: {error_text(error)}") from error
    if not isinstance(migrated, dict):
        raise InvalidStateError(
            f"{name} returned a {type(migrated).__name__}; it must return the new state as a dict"
        )
    checked: dict[str, Any] = copy(migrated)
    return checked
