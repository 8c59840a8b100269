"""Tools of MCP servers, whose names are longer or of other characters than providers take."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from kern.tools.mcp.names import shown_names

LONG = "get_info_on_consulting_doctor_pharmacist_for_drug_interactions_by_"


@given(st.lists(st.text("ab._-é", min_size=1, max_size=70), unique=True), st.sampled_from([None, "my.own"]))
def test_each_tool_has_a_name_of_its_own_that_providers_take(names: list[str], prefix: str | None) -> None:
    shown = shown_names(names, prefix)
    assert list(shown) == names
    assert len(set(shown.values())) == len(names)
    assert all(re.fullmatch("[A-Za-z0-9_-]{1,64}", name) for name in shown.values())
    assert shown_names(reversed(names), prefix) == shown


def test_only_names_that_would_become_equal_are_told_apart() -> None:
    shown = shown_names(["find", "files.read", "files_read", "a.b"])
    assert shown.pop("files.read").startswith("files_read_")
    assert shown == {"find": "find", "files_read": "files_read", "a.b": "a_b"}


def test_names_cut_to_the_same_length_differ_and_stay_the_same_from_one_list_to_the_next() -> None:
    drug, brand = shown_names([f"{LONG}drug_name", f"{LONG}brand_name"], "drugs").values()
    assert drug != brand
    assert drug[:55] == brand[:55] == f"drugs_{LONG}"[:55]
    assert (
        shown_names([f"{LONG}brand_name", "other", f"{LONG}drug_name"], "drugs")[f"{LONG}drug_name"] == drug
    )
