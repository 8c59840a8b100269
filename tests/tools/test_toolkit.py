from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from kern.errors import UsageError
from kern.tools import Function, Toolkit, tool
from kern.tools.toolkit import collect, instructions_of


class Notes(Toolkit):
    def __init__(self, **options: Any) -> None:
        self.lines: list[str] = []
        super().__init__(name="notes", tools=[self.read, self.write, self.erase], **options)

    def read(self) -> str:
        """Read all."""
        return "\n".join(self.lines)

    async def write(self, line: str) -> None:
        self.lines.append(line)

    @tool(instructions="Erase with care.")
    def erase(self) -> None:
        self.lines.clear()

    @classmethod
    @tool
    def shared(cls, line: str) -> str:
        return f"{cls.__name__} {line}"


def read() -> str:
    return ""


def add(a: int) -> int:
    return a


async def test_a_toolkits_methods_work_on_its_object() -> None:
    notes = Notes()
    tools = collect([notes, add])
    assert list(tools) == ["read", "write", "erase", "add"]
    await tools["write"].entrypoint(**tools["write"].validate('{"line": "x"}'))
    assert tools["read"].entrypoint() == "x"
    tools["erase"].entrypoint()
    assert notes.lines == []
    assert repr(notes) == "Notes(name='notes', tools=[read, write, erase])"


def test_tools_are_included_and_excluded_by_name() -> None:
    assert list(Notes(include_tools=["erase", "read"]).functions) == ["read", "erase"]
    assert list(Notes(exclude_tools=["erase"]).functions) == ["read", "write"]
    assert list(Notes(include_tools=[]).functions) == []


@pytest.mark.parametrize(
    "keyword",
    [
        "include_tools",
        "exclude_tools",
        "requires_confirmation_tools",
        "external_execution_required_tools",
        "stop_after_tool_call_tools",
        "show_result_tools",
    ],
)
def test_an_unknown_name_is_refused_with_the_known_ones(keyword: str) -> None:
    with pytest.raises(
        UsageError, match=f"notes: {keyword} names unknown tools: raed; its tools are: read, write, erase"
    ):
        Notes(**{keyword: ["raed"]})


def test_a_misspelt_keyword_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="include_tool"):
        Notes(include_tool=["read"])


def test_options_reach_the_named_tools_and_only_those(tmp_path: Path) -> None:
    functions = Notes(
        requires_confirmation_tools=["erase"],
        external_execution_required_tools=["write"],
        stop_after_tool_call_tools=["read"],
        cache_results=True,
        cache_ttl=5,
        cache_dir=tmp_path,
    ).functions
    assert [f.requires_confirmation for f in functions.values()] == [False, False, True]
    assert [f.external_execution for f in functions.values()] == [False, True, False]
    assert [f.stop_after_tool_call for f in functions.values()] == [True, False, False]
    assert [f.show_result for f in functions.values()] == [True, False, False]
    assert {(f.cache_results, f.cache_ttl, f.cache_dir) for f in functions.values()} == {(True, 5, tmp_path)}
    assert Notes().functions["erase"].requires_confirmation is False


def test_two_different_tools_of_one_name_are_refused_with_both() -> None:
    with pytest.raises(UsageError, match=r"named 'read': .*Notes\.read and .*test_toolkit\.read"):
        collect([Notes(), read])
    with pytest.raises(UsageError, match="named 'read'"):
        collect([Notes(), Notes()])
    with pytest.raises(UsageError, match="named 'add'"):
        collect([add, Function(add, timeout=1)])


def test_the_same_tool_twice_is_one_tool() -> None:
    notes = Notes()
    assert list(collect([notes, add, notes, add, Function(add), notes.read])) == [
        "read",
        "write",
        "erase",
        "add",
    ]


@pytest.mark.parametrize(
    ("tools", "said"),
    [
        ([3], "3 is not callable"),
        ([None], "None is not callable"),
        ([{"type": "function"}], "is not callable"),
        ([Notes], r"Notes is a class.*Notes\(\)"),
        (add, "must be a list"),
        ("add", "must be a list"),
        (Notes(), "must be a list"),
    ],
)
def test_what_is_no_list_of_tools_is_refused(tools: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        collect(tools)


def test_a_toolkit_that_forgets_its_base_class_is_told_so() -> None:
    class Forgetful(Toolkit):
        def __init__(self) -> None:
            pass

    with pytest.raises(UsageError, match=r"Forgetful\.__init__ must call super"):
        collect([Forgetful()])


def test_a_tool_under_classmethod_is_bound_to_the_class() -> None:
    made = collect([Notes.shared])["shared"]
    assert made.entrypoint(**made.validate('{"line": "x"}')) == "Notes x"


def test_instructions_are_gathered_once_each_in_order() -> None:
    notes = Notes(instructions="Keep notes.")
    assert instructions_of([notes, add, notes]) == ["Keep notes.", "Erase with care."]


def test_ten_thousand_agents_with_one_tool_hold_little() -> None:
    collect([add])
    tools = [collect([add]) for _ in range(10_000)]
    one = tools[0]["add"]
    assert sys.getsizeof(tools[0]) + sys.getsizeof(one) < 1024
    assert all(held["add"]._arguments is one._arguments for held in tools)
