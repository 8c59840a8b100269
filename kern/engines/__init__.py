"""Engines start durable runs, and start them again after a process has died.

Kern stores the steps of a run; an engine only has to make sure that a process resumes it.
`kern.engines.worker` is Kern's own engine and needs only a database. `kern.engines.temporal` and
`kern.engines.dbos` need their extras.
"""

from kern.durable.submission import Submission
from kern.engines.driving import Runner, submission, submit
from kern.engines.worker import Worker

__all__ = ["Runner", "Submission", "Worker", "submission", "submit"]
