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
"""Takes the state as one version of the application wrote it; returns it as the next version wants it."""

DEFAULTS = "state_defaults"
"""Signs what a typed state adds to a session that an older version of its class has written."""


_MIGRATION = re.compile(r"state_migrations\[(\d+)\]")


class Upgrade(NamedTuple):
    """One step of bringing a stored state up to date.

    Args:
        name: What its commit is signed with: "state_migrations[0]", or "state_defaults".
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
        default: Makes what a new session starts from.
        state_type: What the state looks like to the application's functions.
        migrations: One for each step of the state's version, which is counted from 0.
        policies: Rules for single places where two processes have changed the same value.
    """

    default: Callable[[], Mapping[str, Any]] = dict
    state_type: StateType = DICT
    migrations: Sequence[Migration] = ()
    policies: Policies = field(default_factory=dict)

    @property
    def version(self) -> int:
        """The version of the states that it writes."""
        return len(self.migrations)

    @property
    def takes_anything(self) -> bool:
        """Nothing is declared that a stored state could fail to be."""
        return self.state_type is DICT and not self.migrations

    def joined(self, other: StateSpec) -> StateSpec:
        """For a session that is in use under both: the stricter one, and all policies, `other`'s first."""
        if other is self:
            return self
        stricter = self if (other.takes_anything or other.version < self.version) else other
        return replace(stricter, policies={**self.policies, **other.policies})

    def upgrades(self, tree: dict[str, Any], version: int) -> list[Upgrade]:
        """The steps that make a state of `version` one of this spec's; `tree` stays as it is.

        Raises:
            InvalidStateError: A newer version has written it, a migration failed, or the result does not fit.
        """
        if self.takes_anything:
            return []
        if version > self.version:
            raise InvalidStateError(
                f"the stored state has version {version}, written by a newer version of the "
                f"application; this version knows {self.version} state_migrations and cannot read "
                "it"
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
        """Merge two states that both grew out of `base`.

        Where the parts fit but the whole does not (a check over several fields), ours is taken, whole: a
        session must never hold a state that cannot be loaded.
        """
        merged = merge(base, theirs, ours, self.policies)
        if self.state_type is DICT:
            return merged
        try:
            return Merged(self.state_type.fit(merged.value), merged.conflicts)
        except InvalidStateError:
            return Merged(ours, [*merged.conflicts, Conflict("", base, theirs, ours)])


def migration_name(index: int) -> str:
    """What the commit of a migration is signed with."""
    return f"state_migrations[{index}]"


def migration_index(name: str | None) -> int | None:
    """The reverse of `migration_name`; None for what signs no migration."""
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
