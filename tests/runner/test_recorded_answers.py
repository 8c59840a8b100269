"""A structured answer that is read back is the one that the run returned, whatever its type does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PrivateAttr,
    SecretStr,
    computed_field,
    field_validator,
)

from kern import Agent, Team
from kern.db.sqlite import SqliteDb
from kern.durable import DbJournal
from kern.messages import ToolCall
from kern.testing import ScriptedModel, tool_call


class Price(BaseModel):
    """The validator's result is another value if it is validated again."""

    cents: int

    @field_validator("cents")
    @classmethod
    def in_cents(cls, value: int) -> int:
        return value * 100


class Closed(BaseModel):
    """What is written has a field that is refused when it is read."""

    model_config = ConfigDict(extra="forbid")
    cents: int

    @computed_field
    def dollars(self) -> float:
        return self.cents / 100


class Hidden(BaseModel):
    cents: int
    token: str = Field(default="", exclude=True)
    code: SecretStr = SecretStr("")


class Renamed(BaseModel):
    cents: int = Field(serialization_alias="amount")


class Formatted(BaseModel):
    cents: Annotated[int, PlainSerializer(lambda value: f"{value} ct")]


class Seen(BaseModel):
    cents: int
    _seen: int = PrivateAttr(default=1)


CASES: list[tuple[Any, str]] = [
    (Price, '{"cents": 3}'),
    (Closed, '{"cents": 3}'),
    (Hidden, '{"cents": 3, "token": "t", "code": "X-77"}'),
    (Renamed, '{"cents": 3}'),
    (Formatted, '{"cents": 3}'),
    (Seen, '{"cents": 3}'),
    (list[Price], '{"value": [{"cents": 3}]}'),
    (dict[str, Any], '{"cents": 3}'),
]
WAYS = ["native", "tool", "none"]


class OneWay(ScriptedModel):
    def __init__(self, way: Any, text: str) -> None:
        super().__init__([ToolCall("c", "final_answer", text) if way == "tool" else text])
        self.structured_output = way


@pytest.mark.parametrize(("schema", "text"), CASES, ids=lambda value: getattr(value, "__name__", ""))
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("durable", [False, True], ids=["", "durable"])
async def test_a_run_that_is_asked_for_again_returns_the_same_answer(
    schema: Any, text: str, way: str, durable: bool, tmp_path: Path
) -> None:
    def agent() -> Agent[Any]:
        db = SqliteDb(tmp_path / "a.db")
        journal = DbJournal(db) if durable else None
        model = OneWay(way, text)
        return Agent[Any](id="a", model=model, output_schema=schema, db=db, journal=journal)

    keywords: dict[str, Any] = {"session_id": "s", "run_id": "r", "on_duplicate": "return"}
    first = await agent().arun("go", **keywords)
    again = await agent().arun("go", **keywords)
    assert first.content == again.content
    assert type(first.content) is type(again.content)


@pytest.mark.parametrize(("schema", "text"), CASES, ids=lambda value: getattr(value, "__name__", ""))
async def test_a_batch_that_is_started_again_returns_the_same_answers(
    schema: Any, text: str, tmp_path: Path
) -> None:
    def agent(*answers: str) -> Agent[Any]:
        model = ScriptedModel(list(answers))
        return Agent[Any](id="a", model=model, output_schema=schema, db=SqliteDb(tmp_path / "a.db"))

    first = await agent(text, text).amap(["one", "two"], batch="b", progress=False)
    again = await agent().amap(["one", "two"], batch="b", progress=False)
    assert [output.content for output in again] == [output.content for output in first]
    assert [output.status for output in again] == [output.status for output in first]


async def test_so_does_a_team_whose_member_answers(tmp_path: Path) -> None:
    def team(*answers: str) -> Team[Any]:
        member = Agent(id="m", model=ScriptedModel(list(answers)))
        leader = ScriptedModel([tool_call("delegate_task_to_member", member_id="m", task="say")])
        db = SqliteDb(tmp_path / "a.db")
        return Team[Any](
            [member],
            id="t",
            model=leader,
            mode="route",
            output_schema=Price,
            db=db,
            store_member_responses=True,
        )

    keywords: dict[str, Any] = {"session_id": "s", "run_id": "r", "on_duplicate": "return"}
    first = await team('{"cents": 3}').arun("go", **keywords)
    assert first.content == Price.model_construct(cents=300)
    assert (await team().arun("go", **keywords)).content == first.content
