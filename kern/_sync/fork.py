"""The one place that knows whether this Python can fork.

Windows has no `os.register_at_fork`; there is nothing to do there, since nothing forks.
"""

from __future__ import annotations

import os
from collections.abc import Callable

Hook = Callable[[], object]


def after_fork_in_child(hook: Hook) -> None:
    """Have `hook` called in every forked child, before any other code there; it stays for good."""
    around_fork(child=hook)


def around_fork(*, before: Hook | None = None, parent: Hook | None = None, child: Hook | None = None) -> None:
    """Have hooks called around every fork: before it, and after it in the parent and in the child."""
    hooks = {"before": before, "after_in_parent": parent, "after_in_child": child}
    if hasattr(os, "register_at_fork"):  # read at each call, so that a test can take it away
        os.register_at_fork(**{name: hook for name, hook in hooks.items() if hook is not None})
