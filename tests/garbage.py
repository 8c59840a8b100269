"""What only the garbage collector can free: the objects in reference cycles that code leaves behind."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def garbage_of_block() -> Iterator[list[object]]:
    """Yield a list that holds, after the block, the objects of the block that only the collector can free.

    Objects from before the block are left out, garbage or not: a generator that is finalized on its way out
    needs more than one collection, so that the garbage of one test could be found in the next.
    """
    found: list[object] = []
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield found
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        found += gc.garbage
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.unfreeze()
        gc.enable()
