"""Slips in values that are needed later are refused where they are made, and foreign errors are named."""

from __future__ import annotations

import math
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, field_validator

import kern
from kern import Agent, Toolkit, UsageError, tool
from kern.db import InMemoryDb, SqliteDb
from kern.durable import DbJournal
from kern.engines import Worker
from kern.errors import InputCheckError, InvalidStateError, KernError, RunMismatch
from kern.runner.options import as_json, as_text
from kern.state import add
from kern.testing import FunctionModel, ScriptedModel
from tests.logs import kern_messages


def agent(**more: Any) -> Agent:
    return Agent(**{"model": ScriptedModel(["done"]), **more})


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        *(
            (name, value)
            for name in ("pre_hooks", "post_hooks", "tool_hooks")
            for value in (None, 5, "x", [5])
        ),
        *(("events_to_skip", value) for value in (None, 5, "RunContent", [None], [{}])),
        *(("state_migrations", value) for value in (None, 5, ["x"])),
        *(("journal", value) for value in (5, "x", {}, object())),
        *(("merge", value) for value in (5, [None], {5: add}, {"n": "add"}, {"n": 5}, {"n": lambda a, b: a})),
        *(("num_history_runs", value) for value in (0.5, math.inf, math.nan, None, "3", -1, True)),
        *(("retries", value) for value in (0.5, math.inf, None, "1", -1)),
        *(("max_requests", value) for value in (0.5, math.inf, "1", -1)),
        *(("delay_between_retries", value) for value in (math.nan, math.inf, None, "1", -1)),
        *(("timeout", value) for value in (math.nan, "5", 0, True, 10**400)),
    ],
)
def test_a_constructor_s_wrong_value_is_refused_with_its_name(name: str, wrong: Any) -> None:
    with pytest.raises(UsageError, match=name):
        agent(**{name: wrong})


@pytest.mark.parametrize("merge", [{}, {"n": add}, {"n": max}, {"a.b": lambda base, *sides: sides[0]}])
def test_functions_of_three_values_merge(merge: Any) -> None:
    assert agent(merge=merge).merge == merge


@pytest.mark.parametrize("wrong", [math.nan, -1.0, -math.inf, "5", True])
def test_a_wrong_time_is_refused_by_databases_journals_and_workers(wrong: Any, tmp_path: Path) -> None:
    db = SqliteDb(tmp_path / "kern.db")
    with pytest.raises(UsageError, match="busy_timeout"):
        SqliteDb("x.db", busy_timeout=wrong)
    with pytest.raises(UsageError, match="claim_seconds"):
        DbJournal(db, claim_seconds=wrong)
    desk = agent(id="desk", db=db, journal=DbJournal(db))
    for name in ("poll_seconds", "claim_seconds", "at_once", "attempts"):
        with pytest.raises(UsageError, match=name):
            Worker(desk, **{name: wrong})
    with pytest.raises(UsageError, match="limit_threads"):
        kern.limit_threads(wrong)


@pytest.mark.parametrize(
    "slip",
    [
        {"role": "usr", "content": "hello"},
        {"role": "user", "contents": "hello"},
        {"role": "user", "content": "hello", "extra": 1},
        {"role": "user", "parts": [{"text": "hello"}]},
    ],
)
def test_a_dict_that_looks_like_a_message_and_is_none_is_refused(slip: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="looks like a message and is none"):
        agent().run([{"role": "user", "content": "hi"}, slip])


def test_data_with_a_role_is_sent_as_json() -> None:
    model = ScriptedModel(["done"])
    agent(model=model).run([{"name": "Ann", "role": "admin"}])
    assert model.requests[0].messages[-1].content == '[{"name": "Ann", "role": "admin"}]'


class Kit(Toolkit):
    @tool
    def look(self) -> str:
        """Look."""
        return "seen"

    @tool(name="other")
    def listen(self) -> str:
        """Listen."""
        return "heard"


class Empty(Kit):
    def __init__(self) -> None:
        super().__init__(name="empty")


class Half(Kit):
    def __init__(self) -> None:
        super().__init__(name="half", tools=[self.look])


class Whole(Kit):
    def __init__(self) -> None:
        super().__init__(name="whole", tools=[self.look, self.listen], exclude_tools=["look"])


def test_a_toolkit_that_forgets_its_marked_methods_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(UsageError, match=r"tools=\[self.look, self.listen\]"):
        Empty()
    for _ in range(2):
        assert list(Half().functions) == ["look"]
        assert list(Whole().functions) == ["other"]
        Toolkit("bare")
    assert kern_messages(caplog) == [
        "the toolkit half does not list listen of Half, marked with @tool: no model sees it",
        "the toolkit bare has no tools: pass tools=[...]",
    ]


# Validators of the application.


class Checked(BaseModel):
    a: int = 0

    @field_validator("a")
    @classmethod
    def look_up(cls, value: int) -> int:
        if value == 1:
            raise KeyError("no table")
        return value


def test_a_validator_that_raises_no_value_error_is_named() -> None:
    said = "Checked.look_up raised KeyError: 'no table'; a validator refuses a value by a ValueError"
    with pytest.raises(InputCheckError, match=f"the input is not a valid Checked: {said}"):
        agent(input_schema=Checked).run({"a": 1})
    with pytest.raises(InputCheckError, match=said):
        agent(input_schema=Checked).run('{"a": 1}')
    typed = agent(session_state=Checked)
    with pytest.raises(InvalidStateError, match=said):
        typed.run("x", session_state={"a": 1})
    with pytest.raises(InvalidStateError, match=said):
        typed.update_session_state({"a": 1})
    with pytest.raises(UsageError, match=f"output_schema Checked: {said}"):
        agent(model=ScriptedModel(['{"a": 1}']), output_schema=Checked).run("x")


class Other(BaseModel):
    b: str


@pytest.mark.parametrize(("first", "second"), [(Checked, Other), (Checked, None), (int, str)])
def test_a_stored_answer_of_another_schema_is_a_mismatch(first: Any, second: Any) -> None:
    db = InMemoryDb()
    answer = "3" if first is int else '{"a": 2}'
    options: dict[str, Any] = {"id": "a", "db": db, "session_id": "s"}
    asked = agent(model=ScriptedModel([answer]), output_schema=first, **options)
    asked.run("x", run_id="r")
    assert asked.run("x", run_id="r", on_duplicate="return").content == (3 if first is int else Checked(a=2))
    with pytest.raises(RunMismatch, match="another output_schema"):
        agent(output_schema=second, **options).run("x", run_id="r", on_duplicate="return")


# An empty text is a user.


async def test_the_user_of_a_batch_may_be_an_empty_text() -> None:
    model = FunctionModel(lambda request: "done")
    runner = agent(model=model, id="a", user_id="ann", db=InMemoryDb())
    for user in ("", None):
        outputs = await runner.amap(["x", "y"], batch="b", user_id=user, progress=False)
        assert [output.user_id for output in outputs] == ["" if user == "" else "ann"] * 2
        assert [output.content for output in outputs] == ["done", "done"]


# Sets have one order.


class Kind(Enum):
    a = "a"
    b = "b"
    c = "c"


class Order(BaseModel):
    tags: set[str] = {"gamma", "alpha", "beta"}
    kinds: frozenset[Kind] = frozenset(Kind)
    within: list[dict[str, set[int]]] = [{"x": {30, 4, 1000}}]


def test_a_set_in_an_input_is_written_in_one_order() -> None:
    whole = {"tags": ["alpha", "beta", "gamma"], "kinds": ["a", "b", "c"], "within": [{"x": [1000, 30, 4]}]}
    assert as_json(Order()) == whole
    assert as_text(Order()) == (
        '{"tags":["alpha","beta","gamma"],"kinds":["a","b","c"],"within":[{"x":[1000,30,4]}]}'
    )
    assert as_json({"order": [Order()], "more": {"b", "a"}}) == {"order": [whole], "more": ["a", "b"]}


def test_a_set_as_a_tool_s_default_is_declared_in_one_order() -> None:
    @tool
    def find(kinds: set[Kind] = frozenset(Kind), by: dict[str, set[str]] = {"x": {"b", "a"}}) -> str:  # type: ignore[assignment]  # noqa: B006
        """Find."""
        return ""

    declared = find.parameters["properties"]
    assert declared["kinds"]["default"] == ["a", "b", "c"]
    assert declared["by"]["default"] == {"x": ["a", "b"]}


def test_the_order_of_an_input_s_keys_makes_no_other_run() -> None:
    runner = agent(db=InMemoryDb(), id="a")
    first = runner.run({"a": 1, "b": {"c": 2, "d": 3}}, run_id="r")
    again = runner.run({"b": {"d": 3, "c": 2}, "a": 1}, run_id="r", on_duplicate="return")
    assert again.run_id == first.run_id
    with pytest.raises(KernError):
        runner.run({"a": 1}, run_id="r", on_duplicate="return")
