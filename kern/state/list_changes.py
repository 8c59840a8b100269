"""Where two lists differ: the alignment that patches and merges are built on.

Short lists are aligned by `difflib.SequenceMatcher` (Ratcliff/Obershelp), whose time grows with the square of
the length. Longer ones are first split at a longest increasing subsequence of equal elements (patience
sorting), whose time grows like that of sorting.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Hashable, Iterator
from difflib import SequenceMatcher
from operator import ne
from typing import Any, NamedTuple

from kern.state.codec import same

_SMALL = 200 * 200
"""The number of pairs of elements up to which `SequenceMatcher` aligns the whole lists: some 5 ms of work."""
_SMALL_GAP = 64 * 64
"""The same limit for a gap between two elements that stay, in longer lists."""


class ListChange(NamedTuple):
    """`old[old_from:old_to]` became `new[new_from:new_to]`; either may be empty."""

    old_from: int
    old_to: int
    new_from: int
    new_to: int


def list_changes(old: list[Any], new: list[Any], key: Callable[[Any], Hashable]) -> list[ListChange]:
    """The places where `new` differs from `old`, in order. The elements between them are equal.

    Args:
        old, new: The lists.
        key: Two elements match if their keys are equal.
    """
    start = _common_prefix(old, new)
    rest = min(len(old), len(new)) - start
    end = _common_prefix(old[::-1][:rest], new[::-1][:rest])
    old_end, new_end = len(old) - end, len(new) - end
    if start == old_end and start == new_end:
        return []
    whole = ListChange(start, old_end, start, new_end)
    if start in (old_end, new_end):
        return [whole]
    old_keys = [key(value) for value in old[start:old_end]]
    new_keys = [key(value) for value in new[start:new_end]]
    if len(old_keys) * len(new_keys) <= _SMALL:
        return _searched(old_keys, new_keys, start, start)
    blocks: list[ListChange] = []
    old_at = new_at = 0
    for old_kept, new_kept in [*_kept(old_keys, new_keys), (len(old_keys), len(new_keys))]:
        old_gap, new_gap = old_keys[old_at:old_kept], new_keys[new_at:new_kept]
        if old_gap and new_gap and len(old_gap) * len(new_gap) <= _SMALL_GAP:
            blocks += _searched(old_gap, new_gap, start + old_at, start + new_at)
        elif old_gap or new_gap:
            blocks.append(ListChange(start + old_at, start + old_kept, start + new_at, start + new_kept))
        old_at, new_at = old_kept + 1, new_kept + 1
    return blocks


def _searched(
    old_keys: list[Hashable], new_keys: list[Hashable], old_start: int, new_start: int
) -> list[ListChange]:
    opcodes = SequenceMatcher(None, old_keys, new_keys, autojunk=False).get_opcodes()
    return [
        ListChange(i1 + old_start, i2 + old_start, j1 + new_start, j2 + new_start)
        for tag, i1, i2, j1, j2 in opcodes
        if tag != "equal"
    ]


def _kept(old_keys: list[Hashable], new_keys: list[Hashable]) -> list[tuple[int, int]]:
    """The places, in `old` and in `new`, of elements that stay: as many pairs as possible that do not cross.

    That is a longest increasing subsequence, found by patience sorting. Of several equal elements the first
    in `old` is paired with the first in `new`, the second with the second, and so on. This may find fewer
    pairs than there are, but never takes longer than sorting.
    """
    places = {numbered: place for place, numbered in enumerate(_numbered(new_keys))}
    tails: list[int] = []  # per length: the least place in `new` at which a subsequence of this length ends
    ends: list[int] = []  # per length: the index in `pairs` of the pair with which it ends
    pairs: list[tuple[int, int, int]] = []  # the place in `old`, in `new`, and the index of the pair before
    for old_place, numbered in enumerate(_numbered(old_keys)):
        new_place = places.get(numbered)
        if new_place is None:
            continue
        length = bisect_left(tails, new_place)
        pairs.append((old_place, new_place, ends[length - 1] if length else -1))
        tails[length : length + 1] = [new_place]
        ends[length : length + 1] = [len(pairs) - 1]
    kept: list[tuple[int, int]] = []
    at = ends[-1] if ends else -1
    while at >= 0:
        old_place, new_place, at = pairs[at]
        kept.append((old_place, new_place))
    return kept[::-1]


def _numbered(keys: list[Hashable]) -> Iterator[tuple[Hashable, int]]:
    """Each key with the number of equal keys before it."""
    seen: dict[Hashable, int] = {}
    for key in keys:
        number = seen.get(key, 0)
        seen[key] = number + 1
        yield key, number


def _common_prefix(a: list[Any], b: list[Any]) -> int:
    """How many elements the lists have in common at the start."""
    length = min(len(a), len(b))
    # Python's != finds the first difference fast, but takes 1 and 1.0 as equal; `same` compares the texts.
    length = next((i for i, differs in enumerate(map(ne, a, b)) if differs), length)
    if same(a[:length], b[:length]):
        return length
    return next(i for i in range(length) if not same(a[i], b[i]))
