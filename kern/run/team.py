"""The output and event names of a team's run, under the path where Agno has them."""

from kern.run.events import TeamRunEvent
from kern.run.output import TeamRunOutput

__all__ = ["TeamRunEvent", "TeamRunOutput"]
