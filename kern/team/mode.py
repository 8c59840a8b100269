"""The modes of a team."""

from __future__ import annotations

from enum import StrEnum

from kern.errors import UsageError


class TeamMode(StrEnum):
    """How a team's leader works with its members."""

    coordinate = "coordinate"
    """The leader writes tasks for members and combines their answers."""
    route = "route"
    """The leader picks one member, whose answer becomes the team's answer."""
    broadcast = "broadcast"
    """One task goes to all members at the same time; the leader combines their answers."""
    tasks = "tasks"
    """The leader keeps a list of tasks in the session state and works until all of them are done."""


def chosen_mode(
    mode: TeamMode | str | None, *, respond_directly: bool, delegate_to_all_members: bool
) -> TeamMode:
    """The mode that a team's parameters select.

    Raises:
        UsageError: The mode is unknown, or the parameters select two different ones.
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
            f"the team is given two modes: {' and '.join(dict.fromkeys(wanted))}; pass only `mode`"
        )
    return wanted[0] if wanted else TeamMode.coordinate
