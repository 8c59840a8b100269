"""Teams of agents."""

from kern.team.mode import TeamMode
from kern.team.team import Team

__all__ = ["Team", "TeamMode"]
