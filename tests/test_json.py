"""No two keys of a dict become one key in JSON: one of the values would be lost in silence."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

import pytest
from pydantic import BaseModel, Field

from kern import Agent, RunContext
from kern._json import check_keys, jsonable
from kern.db.sqlite import SqliteDb
from kern.errors import KernError, UsageError
from kern.testing import ScriptedModel, tool_call

TWICE: dict[Any, Any] = {1: "a", "1": "b"}


class Filled(BaseModel):
    names: dict[int | str, str]


class Excluding(BaseModel):
    names: dict[int | str, str] = Field(exclude=True)
    kept: dict[int, str] = {}


@dataclass(slots=True)
class Slotted:
    names: dict[Any, Any]


class Color(Enum):
    red = "1"


@pytest.mark.parametrize(
    ("value", "where"),
    [
        (TWICE, "the keys 1 and '1'"),
        ({"a": [(TWICE,)]}, "/a/0/0: the keys 1 and '1'"),
        ({None: 1, "None": 2}, "the keys None and 'None'"),
        ({True: 1, "true": 2}, "the keys True and 'true'"),
        ({1.5: 1, "1.5": 2}, "the keys 1.5 and '1.5'"),
        ({Color.red: 1, 1: 2}, "the keys <Color.red: '1'> and 1"),
        ({(1, 2): 1, "1,2": 2}, "the keys (1, 2) and '1,2'"),
        ({b"x": 1, "x": 2}, "the keys b'x' and 'x'"),
        (dict.fromkeys(("\ud800", "\udfff")), r"the keys '\ud800' and '\udfff'"),
        ({"m": Filled(names={1: "a", "1": "b"})}, "/m/names: the keys 1 and '1'"),
        ([Slotted(TWICE)], "/0/names: the keys 1 and '1'"),
    ],
)
def test_two_keys_that_are_one_in_json_are_refused(value: Any, where: str) -> None:
    with pytest.raises(ValueError, match="are the same key in JSON") as caught:
        jsonable(value)
    assert str(caught.value).startswith(where)


def test_other_keys_are_not_refused() -> None:
    fine = {1: "a", "2": "b", 2.5: "c", None: "d", "é": {Color.red: 1, "red": [{3: 4}]}}
    check_keys(fine)
    assert jsonable(fine) == {"1": "a", "2": "b", "2.5": "c", "None": "d", "é": {"1": 1, "red": [{"3": 4}]}}
    assert jsonable(Excluding(names={1: "a", "1": "b"}, kept={1: "a"})) == {"kept": {"1": "a"}}


def test_a_value_that_contains_itself_is_refused_as_before() -> None:
    loop: list[Any] = [TWICE]
    loop.append(loop)
    with pytest.raises(ValueError, match="Circular reference"):
        jsonable(loop)


@pytest.mark.parametrize(
    "options",
    [
        {"input": TWICE},
        {"input": [{"a": TWICE}]},
        {"input": Filled(names={1: "a", "1": "b"})},
        {"metadata": TWICE},
        {"metadata": {"a": TWICE}},
        {"session_state": {"a": TWICE}},
    ],
)
async def test_a_run_does_not_begin_with_them(options: dict[str, Any]) -> None:
    agent = Agent(model=ScriptedModel(["unused"]))
    with pytest.raises(KernError, match=r"the keys 1 and '1' are the same key|the key 1 is a int"):
        await agent.arun(options.pop("input", "x"), **options)
    assert agent.model is not None
    assert agent.model.requests == []


def test_an_agent_is_not_made_with_them() -> None:
    with pytest.raises(UsageError, match="the keys 1 and '1' are the same key"):
        Agent(metadata={"a": TWICE})


async def test_the_model_reads_both_values_of_a_result_and_of_dependencies() -> None:
    def give() -> dict[Any, Any]:
        return TWICE

    model = ScriptedModel([tool_call("give"), "done"])
    await Agent(model=model, tools=[give], add_dependencies_to_context=True).arun("x", dependencies=TWICE)
    result, asked = model.requests[-1].messages[-1].content, model.requests[-1].messages[0].content
    assert result == '{"1":"a","1":"b"}'
    assert '{"1":"a","1":"b"}' in (asked or "")


async def test_a_tool_that_puts_them_into_the_metadata_fails_the_run_which_is_stored(tmp_path: Any) -> None:
    def put(run_context: RunContext) -> str:
        run_context.metadata["twice"] = TWICE
        return "put"

    agent = Agent(
        model=ScriptedModel([tool_call("put"), "done"]), tools=[put], db=SqliteDb(tmp_path / "kern.db")
    )
    with pytest.raises(UsageError, match=r"without its metadata.*the keys 1 and '1' are the same key"):
        await agent.arun("x", run_id="r", metadata={"a": 1})
    stored = await agent.aget_run_output("r")
    assert stored is not None
    assert (stored.status.value, stored.metadata, stored.content) == ("ERROR", {}, "done")
