"""Many inputs at once: their order, how many at a time, what a second start makes, failed items."""

from __future__ import annotations

import asyncio
import io
import sys
from pathlib import Path
from typing import Any

import pydantic
import pytest

from kern import Agent, RunStatus, Team, tool
from kern.db.sqlite import SqliteDb
from kern.errors import KernError, ModelError, RunMismatch, UsageError
from kern.messages import Message
from kern.models.base import ModelRequest, ModelResponse
from kern.testing import FunctionModel, ScriptedModel


class Asked:
    """Counts what a model is asked, and how many ask at the same time."""

    def __init__(self, *, failing: set[str] | None = None, pause: float = 0.0) -> None:
        self.texts: list[str] = []
        self.now = self.most = 0
        self.failing = set() if failing is None else failing
        self.pause = pause

    async def __call__(self, request: ModelRequest) -> ModelResponse:
        text = request.messages[-1].content or ""
        self.texts.append(text)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(self.pause)
            if text in self.failing:
                raise ModelError(f"no answer to {text}")
            return ModelResponse.of(text.upper())
        finally:
            self.now -= 1


def agent_of(asked: Asked, **options: Any) -> Agent[Any]:
    return Agent(name="Clerk", model=FunctionModel(asked), **options)


async def test_the_outputs_come_in_the_order_of_the_inputs_and_each_has_a_session_of_its_own() -> None:
    asked = Asked()
    outputs = await agent_of(asked).amap(f"item {at}" for at in range(100))
    assert [output.content for output in outputs] == [f"ITEM {at}" for at in range(100)]
    assert len({output.session_id for output in outputs}) == len({output.run_id for output in outputs}) == 100


async def test_no_more_runs_are_in_progress_than_concurrency_says() -> None:
    asked = Asked(pause=0.001)
    await agent_of(asked).amap(map(str, range(30)), concurrency=7)
    assert asked.most == 7


async def test_a_second_start_makes_what_is_lacking_or_failed_and_returns_the_rest(tmp_path: Path) -> None:
    first = Asked(failing={"b"})
    db = SqliteDb(tmp_path / "runs.db")
    before = await agent_of(first, db=db).amap(["a", "b"], batch="day")
    assert [output.status for output in before] == [RunStatus.completed, RunStatus.error]
    assert "no answer to b" in (before[1].error or "")

    second = Asked()
    after = await agent_of(second, db=SqliteDb(tmp_path / "runs.db")).amap(["c", "a", "b"], batch="day")
    assert [output.content for output in after] == ["C", "A", "B"]
    assert sorted(second.texts) == ["b", "c"]
    assert (after[1].run_id, after[1].session_id) == (before[0].run_id, before[0].session_id)


async def test_another_batch_agent_or_user_has_runs_of_its_own(tmp_path: Path) -> None:
    db, asked = SqliteDb(tmp_path / "runs.db"), Asked()
    agent = agent_of(asked, db=db)
    outputs = [
        *await agent.amap(["a"], batch="one"),
        *await agent.amap(["a"], batch="two"),
        *await agent.amap(["a"], batch="one", user_id="ann"),
        *await Agent(name="Other", model=FunctionModel(asked), db=db).amap(["a"], batch="one"),
    ]
    assert len({output.run_id for output in outputs}) == 4
    assert [output.user_id for output in outputs] == [None, None, "ann", None]


async def test_a_key_says_which_item_is_which() -> None:
    asked = Asked()
    agent = agent_of(asked)
    await agent.amap([{"id": 1, "text": "x"}], batch="b", key=lambda item: item["id"])
    changed = await agent.amap([{"id": 1, "text": "y"}], batch="b", key=lambda item: item["id"])
    assert len(asked.texts) == 1
    assert (changed[0].status, changed[0].error_type) == (RunStatus.error, "RunMismatch")


class Report(pydantic.BaseModel):
    title: str


async def test_a_stored_structured_answer_is_of_its_type_again(tmp_path: Path) -> None:
    model = ScriptedModel(['{"title": "one"}'])
    agent = Agent(name="w", model=model, output_schema=Report, db=SqliteDb(tmp_path / "r.db"))
    await agent.amap(["go"], batch="b")
    again = await agent.amap(["go"], batch="b")
    assert again[0].content == Report(title="one")
    returned = await agent.arun(
        "go", run_id=again[0].run_id, session_id=again[0].session_id, on_duplicate="return"
    )
    assert returned.content == Report(title="one")


class Other(pydantic.BaseModel):
    number: int


async def test_a_stored_answer_that_does_not_fit_todays_schema_is_an_error_that_says_so() -> None:
    agent = Agent(name="w", model=ScriptedModel(['{"title": "one"}']), output_schema=Report)
    [output] = await agent.amap(["go"], batch="b")
    with pytest.raises(RunMismatch, match="another output_schema"):
        await agent.arun(
            "go",
            run_id=output.run_id,
            session_id=output.session_id,
            on_duplicate="return",
            output_schema=Other,
        )


async def test_with_raise_the_first_error_cancels_the_rest() -> None:
    asked = Asked(failing={"3"}, pause=0.005)
    with pytest.raises(KernError, match="no answer to 3"):
        await agent_of(asked).amap(map(str, range(100)), concurrency=4, on_error="raise")
    assert asked.now == 0
    assert len(asked.texts) < 20


async def test_an_item_that_cannot_even_begin_is_an_output_too() -> None:
    agent = agent_of(Asked(), input_schema=Report)
    good, bad = await agent.amap([{"title": "fine"}, {"name": "wrong"}])
    assert good.status is RunStatus.completed
    assert (bad.status, bad.error_type, bad.input) == (RunStatus.error, "InputCheckError", {"name": "wrong"})
    assert "/title" in (bad.error or "")


@tool(requires_confirmation=True)
def pay() -> str:
    return "paid"


async def test_an_item_that_waits_for_a_person_still_does_at_the_next_start(tmp_path: Path) -> None:
    from kern.testing import tool_call

    def agent() -> Agent:
        model = ScriptedModel([tool_call("pay"), "Done."])
        return Agent(name="p", model=model, tools=[pay], db=SqliteDb(tmp_path / "r.db"))

    [paused] = await agent().amap(["pay"], batch="b")
    [still] = await agent().amap(["pay"], batch="b")
    assert (still.status, still.run_id) == (RunStatus.paused, paused.run_id)
    still.requirements[0].confirm()
    assert paused.status is RunStatus.paused


async def test_a_team_maps_too() -> None:
    team = Team([], name="T", model=FunctionModel(Asked()))
    outputs = await team.amap(["a", "b"])
    assert [output.content for output in outputs] == ["A", "B"]
    assert {output.team_id for output in outputs} == {"t"}


def test_map_works_in_sync_code() -> None:
    outputs = agent_of(Asked()).map(["a", "b"])
    assert [output.content for output in outputs] == ["A", "B"]


async def test_a_cancelled_batch_leaves_no_run_behind(tmp_path: Path) -> None:
    asked = Asked(pause=60)
    agent = agent_of(asked, db=SqliteDb(tmp_path / "r.db"))
    going = asyncio.create_task(agent.amap(["a", "b"], batch="b"))
    while asked.now < 2:
        await asyncio.sleep(0.001)
    going.cancel()
    with pytest.raises(asyncio.CancelledError):
        await going
    assert [run.status for run in await agent.alist_runs()] == [RunStatus.cancelled] * 2


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"inputs": "one text"}, "takes a list of inputs"),
        ({"inputs": {"a": 1}}, "takes a list of inputs"),
        ({"inputs": ["a"], "key": str}, "pass batch= too"),
        ({"inputs": ["a", "a"], "batch": "b"}, "inputs 0 and 1 of the batch 'b' have the same key"),
        ({"inputs": ["a"], "batch": "b", "key": lambda _: ""}, "must return a text that is not empty"),
        ({"inputs": ["a"], "concurrency": 0}, "concurrency must be a whole number"),
        ({"inputs": ["a"], "concurrency": True}, "concurrency must be"),
        ({"inputs": ["a"], "batch": ""}, "batch must be a name"),
        ({"inputs": ["a"], "on_error": "ignore"}, "on_error must be 'collect' or 'raise'"),
    ],
)
async def test_what_cannot_work_is_said_before_anything_runs(options: dict[str, Any], says: str) -> None:
    asked = Asked()
    with pytest.raises(UsageError, match=says):
        await agent_of(asked).amap(**options)
    assert asked.texts == []


async def test_a_batch_needs_a_name_to_be_known_by() -> None:
    with pytest.raises(UsageError, match="with an id or a name"):
        await Agent(model=ScriptedModel([])).amap(["a"], batch="b")


async def test_ids_of_runs_are_not_the_callers_to_give() -> None:
    with pytest.raises(TypeError, match="has no keyword 'session_id'"):
        await agent_of(Asked()).amap(["a"], session_id="s")  # type: ignore[call-arg]


async def test_a_bar_tells_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    monkeypatch.setattr(sys, "stderr", file)
    await agent_of(Asked(failing={"b"})).amap(["a", "b", "c"], progress=True)
    assert "clerk" in file.getvalue()
    assert "3/3" in file.getvalue()
    assert "1 failed" in file.getvalue()


async def test_a_notebook_without_widgets_is_told_how_it_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    monkeypatch.setattr(sys, "stdout", file)
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    await agent_of(Asked(failing={"b"})).amap(["a", "b", "c"], progress=True)  # a warning is an error here
    assert "3/3" in file.getvalue()
    assert "1 failed" in file.getvalue()


async def test_nothing_is_shown_where_standard_error_is_no_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    await agent_of(Asked()).amap(["a"])
    assert capsys.readouterr() == ("", "")


async def test_messages_are_inputs_too() -> None:
    asked = Asked()
    await agent_of(asked).amap([Message("user", "hi")], batch="m")
    await agent_of(asked).amap([Message("user", "hi")], batch="m")
    assert asked.texts == ["hi", "hi"]  # each object has a memory of its own


async def test_what_cannot_be_written_as_json_fails_alone() -> None:
    circle: list[Any] = []
    circle.append(circle)
    outputs = await agent_of(Asked()).amap(["a", object(), circle, {"x": object()}, "b"])
    assert [output.status is RunStatus.completed for output in outputs] == [True, False, False, False, True]
    with pytest.raises(UsageError, match="cannot be written as JSON, so it needs a key="):
        await agent_of(Asked()).amap(["a", circle], batch="b")


async def test_an_item_that_another_starter_makes_is_waited_for(tmp_path: Path) -> None:
    """Two that work on one batch at the same time share it, and both have all outputs."""
    first, second = Asked(pause=0.2), Asked(pause=0.2)
    one = agent_of(first, db=SqliteDb(tmp_path / "runs.db"))
    two = agent_of(second, db=SqliteDb(tmp_path / "runs.db"))
    texts = [str(number) for number in range(6)]
    both = await asyncio.gather(one.amap(texts, batch="b"), two.amap(texts, batch="b"))
    for outputs in both:
        assert [output.content for output in outputs] == texts
    assert sorted(first.texts + second.texts) == texts
