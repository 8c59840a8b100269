"""Hooks around `os.fork`.

Windows has no `os.register_at_fork` and no fork, so there the hooks are ignored.
"""

from __future__ import annotations

import os
from collections.abc import Callable

Hook = Callable[[], object]


def after_fork_in_child(hook: Hook) -> None:
    """Call `hook` in every forked child, before other code. It cannot be removed."""
    around_fork(child=hook)


def around_fork(*, before: Hook | None = None, parent: Hook | None = None, child: Hook | None = None) -> None:
    """Call hooks around every fork: before it, and after it in the parent and in the child."""
    hooks = {"before": before, "after_in_parent": parent, "after_in_child": child}
    if hasattr(os, "register_at_fork"):  # read at each call, so that a test can remove it
        os.register_at_fork(**{name: hook for name, hook in hooks.items() if hook is not None})
