"""Teams of agents."""

from kern.team.team import Team

__all__ = ["Team"]
