"""The output and event names of an agent's run, under the path where Agno has them."""

from kern.run.events import RunEvent
from kern.run.output import RunOutput

__all__ = ["RunEvent", "RunOutput"]
