"""The session state: one JSON object that all runs of a session share, changed in transactions.

These are the names that an application may need; the other modules of the package are internal.
"""

from kern.state.history import HistoryEntry
from kern.state.pointer import MISSING
from kern.state.policies import MergePolicy, add, maximum, minimum, ours, theirs, union

__all__ = [
    "MISSING",
    "HistoryEntry",
    "MergePolicy",
    "add",
    "maximum",
    "minimum",
    "ours",
    "theirs",
    "union",
]
