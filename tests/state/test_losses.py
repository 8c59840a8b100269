"""What a typed state would lose or change on its way into the database is refused when the call commits."""

from __future__ import annotations

import dataclasses
import html
import math
from collections import Counter, OrderedDict
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import pytest
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    computed_field,
    field_serializer,
    field_validator,
)

from kern import Agent, RunContext
from kern.errors import InvalidStateError
from kern.state.model_state import ModelStateType
from kern.testing import ScriptedModel, tool_call


class Item(BaseModel):
    name: str = ""


class Book(Item):
    isbn: str = ""


@dataclasses.dataclass
class Place:
    floor: Any = 0


class Colour(Enum):
    red = "red"


class Aliased(BaseModel):
    v: int = Field(default=0, alias="vv")

    @computed_field
    def twice(self) -> int:
        return self.v * 2


class Everything(BaseModel):
    items: list[Item] = []
    either: Item | Book | None = None
    price: float | None = 0.0
    prices: list[float | None] = []
    anything: Any = None
    by_name: dict[str, Any] = {}
    by_number: dict[int, str] = {}
    tags: set[str] = set()
    pair: tuple[int, int] = (0, 0)
    when: date | None = None
    place: Place = Place()
    cost: Decimal = Decimal(0)
    due: date | str | None = None
    seen: datetime | None = None
    ratios: set[float | None] = set()
    dates: list[date | str] = []
    dates_by_name: dict[str, list[Annotated[date | str, Field()] | None]] = {}
    aliased: list[Aliased] = []
    model_or_dict: Item | dict[str, Any] | None = None
    hidden: Any = Field(default=None, exclude=True)
    _seen: list[str] = PrivateAttr(default_factory=list)


STATE = ModelStateType(Everything)

REPEATED_HOUR = datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"))
LOST: list[tuple[str, Any, str]] = [
    ("price", math.nan, "/price"),
    ("price", math.inf, "/price"),
    ("prices", [1.0, -math.inf], "/prices/1"),
    ("anything", math.nan, "/anything"),
    ("anything", {"a": [math.nan]}, "/anything/a/0"),
    ("anything", {1, 2}, "/anything"),
    ("anything", date(2026, 1, 2), "/anything"),
    ("anything", Item(), "/anything"),
    ("anything", Decimal("0.1"), "/anything"),
    ("anything", b"bytes", "/anything"),
    ("anything", {1: "one"}, "/anything"),
    ("by_name", {1: "one", "1": "a text"}, "/by_name"),
    ("items", [Item(), Book(name="Kern", isbn="978-0")], "/items/1"),
    ("place", Place(floor=math.nan), "/place/floor"),
    ("place", Place(floor=Colour.red), "/place/floor"),
    ("cost", Decimal("NaN"), "/cost"),
    ("anything", datetime(2026, 1, 2, tzinfo=UTC), "/anything"),
    ("due", "2026-01-02", "/due"),
    ("ratios", [1.0, math.nan], "/ratios/1"),
    ("ratios", {1.0, math.inf}, "/ratios"),
    ("dates", ["tomorrow", "2026-01-02"], "/dates/1"),
    ("dates_by_name", {"a": ["2026-01-02"]}, "/dates_by_name/a/0"),
    ("items", [{"name": "Kern", "isbn": "978-0"}], "/items/0"),
    ("aliased", [{"vv": 5}], "/aliased/0"),
    ("model_or_dict", {"name": "Kern", "pages": 3}, "/model_or_dict"),
]

KEPT: list[tuple[str, Any, Any]] = [
    ("items", [{"name": "milk"}], [{"name": "milk"}]),
    ("items", (Item(name="milk"),), [{"name": "milk"}]),
    ("either", Book(isbn="978-0"), {"name": "", "isbn": "978-0"}),
    ("anything", OrderedDict(a=(1, 2)), {"a": [1, 2]}),
    ("anything", Counter("aa"), {"a": 2}),
    ("by_number", {1: "one"}, {"1": "one"}),
    ("by_number", {"1": "one"}, {"1": "one"}),
    ("tags", {"b", "a"}, ["a", "b"]),
    ("tags", ["b", "a", "a"], ["a", "b"]),
    ("pair", [1, 2], [1, 2]),
    ("when", "2026-01-02", "2026-01-02"),
    ("when", datetime(2026, 1, 2, tzinfo=UTC).date(), "2026-01-02"),
    ("due", "tomorrow", "tomorrow"),
    ("seen", REPEATED_HOUR, "2026-10-25T02:30:00+02:00"),
    ("seen", REPEATED_HOUR.replace(fold=1), "2026-10-25T02:30:00+01:00"),
    ("price", 3, 3.0),
    ("price", "3.5", 3.5),
    ("place", {"floor": 2}, {"floor": 2}),
    ("cost", Decimal("0.10"), "0.10"),
    ("dates", ["tomorrow", date(2026, 1, 2)], ["tomorrow", "2026-01-02"]),
    ("aliased", [{"v": 5, "twice": 10}], [{"v": 5}]),
    ("ratios", [None, 2.0], [2.0, None]),
]


@pytest.mark.parametrize(("field", "value", "path"), LOST)
def test_what_would_not_be_read_back_is_refused_with_its_path(field: str, value: Any, path: str) -> None:
    state = Everything()
    setattr(state, field, value)
    with pytest.raises(InvalidStateError) as caught:
        STATE.dump(state)
    assert caught.value.path == path


@pytest.mark.parametrize(("field", "value", "written"), KEPT)
def test_what_pydantic_reads_as_the_field_s_type_is_kept(field: str, value: Any, written: Any) -> None:
    state = Everything()
    setattr(state, field, value)
    tree = STATE.dump(state)
    assert tree[field] == written
    assert STATE.dump(STATE.load_tree(tree)) == tree


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, value, path in LOST if field in ("price", "anything")]
)
async def test_updates_and_a_runs_state_are_refused_likewise(field: str, value: Any) -> None:
    agent = Agent(model=ScriptedModel(["hi", "hi"]), session_state=Everything, session_id="s")
    await agent.arun("go")
    with pytest.raises(InvalidStateError):
        await agent.aupdate_session_state({field: value})
    with pytest.raises(InvalidStateError):
        await agent.arun("go", session_state={field: value})
    assert (await agent.aget_session_state())[field] == Everything().model_dump()[field]


def test_what_the_class_leaves_out_is_no_loss() -> None:
    state = Everything(hidden=object())
    state._seen.append("x")
    assert "hidden" not in STATE.dump(state)


class Shape:
    """No two of them are equal."""

    def __init__(self, sides: int) -> None:
        self.sides = sides


class Drawing(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    shape: Shape | None = None

    @field_serializer("shape")
    def write(self, shape: Shape | None) -> int | None:
        return None if shape is None else shape.sides

    @field_validator("shape", mode="before")
    @classmethod
    def read(cls, value: Any) -> Any:
        return Shape(value) if isinstance(value, int) else value


def test_an_object_of_the_application_that_is_written_and_read_by_its_own_functions_is_kept() -> None:
    drawing = Drawing()
    drawing.shape = Shape(3)
    assert ModelStateType(Drawing).dump(drawing) == {"shape": 3}


class Masked(BaseModel):
    pin: SecretStr | None = None
    path: Path | None = None


def test_a_secret_is_refused_and_the_error_does_not_show_it() -> None:
    masked = Masked(path=Path("a"))
    assert ModelStateType(Masked).dump(masked) == {"pin": None, "path": "a"}
    masked.pin = SecretStr("1234")
    with pytest.raises(InvalidStateError, match="/pin") as caught:
        ModelStateType(Masked).dump(masked)
    assert "1234" not in str(caught.value)


class Note(BaseModel):
    text: str = ""
    count: int = 0

    @field_validator("text", mode="before")
    @classmethod
    def safe(cls, value: str) -> str:
        return html.escape(value)


def write(run_context: RunContext[Note], text: str) -> str:
    run_context.session_state.text = text
    return "ok"


def look(run_context: RunContext[Note]) -> str:
    return run_context.session_state.text


async def test_a_validator_that_changes_its_own_result_is_refused() -> None:
    model = ScriptedModel(
        [tool_call("write", text="Ann & Bob"), tool_call("write", text="Ann"), tool_call("look"), "done"]
    )
    output = await Agent(model=model, tools=[write, look], session_state=Note).arun("go")
    results = [tool.result or "" for tool in output.tools]
    assert "/text: its validators change it each time it is read" in results[0]
    assert results[1:] == ["ok", "Ann"]
    assert output.session_state == {"text": "Ann", "count": 0}


class Tidy(BaseModel):
    text: str = ""

    @field_validator("text", mode="before")
    @classmethod
    def tidy(cls, value: str) -> str:
        return value.strip().lower()


def test_a_validator_that_accepts_its_own_results_may_change_what_a_call_wrote() -> None:
    tidy = Tidy()
    tidy.text = " Ann "
    assert ModelStateType(Tidy).dump(tidy) == {"text": "ann"}
