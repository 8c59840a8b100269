"""Where two lists differ: the alignment that patches and merges are made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from difflib import SequenceMatcher
from operator import ne
from typing import Any, NamedTuple

from kern.state.codec import same

_MAX_PAIRS = 100_000
"""Where more pairs of equal elements than this would have to be looked at, the search is left out: some
50 ms of work, reached only by long lists that hold the same few values again and again."""


class Block(NamedTuple):
    """`old[old_from:old_to]` became `new[new_from:new_to]`; either may be empty."""

    old_from: int
    old_to: int
    new_from: int
    new_to: int


def changed_blocks(old: list[Any], new: list[Any], key: Callable[[Any], Hashable]) -> list[Block]:
    """The places where `new` differs from `old`, in order; what lies between them is equal.

    Args:
        key: Two elements match when their keys are equal.
    """
    start = _common_prefix(old, new)
    rest = min(len(old), len(new)) - start
    end = _common_prefix(old[::-1][:rest], new[::-1][:rest])
    old_end, new_end = len(old) - end, len(new) - end
    if start == old_end and start == new_end:
        return []
    whole = Block(start, old_end, start, new_end)
    if start in (old_end, new_end):
        return [whole]
    old_keys = [key(value) for value in old[start:old_end]]
    new_keys = [key(value) for value in new[start:new_end]]
    counts = Counter(new_keys)
    if sum(counts[k] for k in old_keys) > _MAX_PAIRS:
        return [whole]
    opcodes = SequenceMatcher(None, old_keys, new_keys, autojunk=False).get_opcodes()
    return [
        Block(i1 + start, i2 + start, j1 + start, j2 + start)
        for tag, i1, i2, j1, j2 in opcodes
        if tag != "equal"
    ]


def _common_prefix(a: list[Any], b: list[Any]) -> int:
    """How many elements the lists have in common at the start."""
    length = min(len(a), len(b))
    # Python's != finds the end at the speed of C, but lets 1 == 1.0 pass; one comparison of text settles it.
    length = next((i for i, differs in enumerate(map(ne, a, b)) if differs), length)
    if same(a[:length], b[:length]):
        return length
    return next(i for i in range(length) if not same(a[i], b[i]))
