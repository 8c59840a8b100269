"""How a team's leader works with its members."""

from __future__ import annotations

from enum import StrEnum

from kern.errors import UsageError


class TeamMode(StrEnum):
    """How a team's leader works with its members."""

    coordinate = "coordinate"
    """The leader delegates tasks of its own wording, and puts the answers together."""
    route = "route"
    """The leader picks a member, whose answer is the team's."""
    broadcast = "broadcast"
    """One task goes to all members at once; the leader puts the answers together."""
    tasks = "tasks"
    """The leader keeps a list of tasks in the session state, until all are done."""


def chosen_mode(
    mode: TeamMode | str | None, *, respond_directly: bool, delegate_to_all_members: bool
) -> TeamMode:
    """The mode that the parameters of a team ask for.

    Raises:
        UsageError: There is no such mode, or they ask for two.
    """
    wanted: list[TeamMode] = []
    if mode is not None:
        try:
            wanted.append(TeamMode(mode))
        except ValueError:
            known = ", ".join(TeamMode)
            raise UsageError(f"there is no team mode {mode!r}; the modes are: {known}") from None
    if respond_directly:
        wanted.append(TeamMode.route)
    if delegate_to_all_members:
        wanted.append(TeamMode.broadcast)
    if len(set(wanted)) > 1:
        raise UsageError(
            f"a team works in one mode, but two are given: {' and '.join(dict.fromkeys(wanted))}"
        )
    return wanted[0] if wanted else TeamMode.coordinate
