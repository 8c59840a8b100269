"""Kern: an async-first agent runtime. Teams of agents on one event loop, sharing one session state."""

from kern._sync.threads import limit_threads
from kern._version import __version__
from kern.agent import Agent
from kern.db.base import SessionInfo
from kern.errors import (
    KernError,
    RetryAgentRun,
    StopAgentRun,
    UsageError,
)
from kern.messages import Message
from kern.run import CancelResult, RunContext, RunOutput, RunStatus, TeamRunOutput
from kern.runner.session_view import Session
from kern.runtime.shutdown import shutdown
from kern.runtime.stream import RunStream
from kern.team import Team
from kern.tools import Toolkit, tool

__all__ = [
    "Agent",
    "CancelResult",
    "KernError",
    "Message",
    "RetryAgentRun",
    "RunContext",
    "RunOutput",
    "RunStatus",
    "RunStream",
    "Session",
    "SessionInfo",
    "StopAgentRun",
    "Team",
    "TeamRunOutput",
    "Toolkit",
    "UsageError",
    "__version__",
    "limit_threads",
    "shutdown",
    "tool",
]
