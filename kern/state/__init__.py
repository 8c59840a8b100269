"""The session state: transactions on one JSON object that everybody in a session shares.

Here is what an application may need by name; the rest is the runtime's.
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
