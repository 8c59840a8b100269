"""Engines: what begins a durable run, and begins it again after its process has died.

Kern keeps the steps of a run; an engine only has to see that somebody goes on with it.
`kern.engines.worker` is Kern's own, for those who have a database; `kern.engines.temporal` and
`kern.engines.dbos` need their extras.
"""

from kern.durable.submission import Submission
from kern.engines.driving import Runner, submission, submit
from kern.engines.worker import Worker

__all__ = ["Runner", "Submission", "Worker", "submission", "submit"]
