"""JSON documents for property tests, and the strictest comparison of them."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"])),
)
keys = st.one_of(
    st.sampled_from(["a", "b", "~", "/", "", "0", "a/b~c"]), st.text(max_size=3).filter(str.isprintable)
)


def trees(
    leaf: st.SearchStrategy[Any] = scalars, names: st.SearchStrategy[str] = keys
) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaf,
        lambda child: st.lists(child, max_size=5) | st.dictionaries(names, child, max_size=5),
        max_leaves=15,
    )


def states(
    leaf: st.SearchStrategy[Any] = scalars, names: st.SearchStrategy[str] = keys
) -> st.SearchStrategy[Any]:
    return st.dictionaries(names, trees(leaf, names), max_size=5)


few_values = st.sampled_from([None, True, False, 0, 1, 1.0, -0.0, 2, "a", "b"])
few_names = st.sampled_from(["p", "q", "r", "a/b"])
near_states = states(few_values, few_names)
"""Documents with so few values and names that two of them have much in common."""


def text(value: Any) -> str:
    """The JSON text by the standard library: the oracle for "the same state"."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
