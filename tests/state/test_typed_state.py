"""The session state as a pydantic model: what functions see, what a commit takes, what a newer class does."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, SecretStr, computed_field, model_validator

from kern import Agent, RunContext, RunStatus, Team
from kern.db.sqlite import SqliteDb
from kern.errors import InvalidStateError, UsageError
from kern.run import RunStartedEvent, SessionStateChangedEvent
from kern.runner.compile import database_of
from kern.state.model_state import ModelStateType, initial_state
from kern.testing import FunctionModel, ScriptedModel, tool_call
from tests.played import agent_with, execution_of


class Item(BaseModel):
    name: str
    quantity: int = 1


class Cart(BaseModel):
    items: list[Item] = []
    owner: str | None = None
    limits: dict[str, int] = {}


def add_milk(run_context: RunContext[Cart]) -> str:
    state = run_context.session_state
    assert type(state) is Cart
    state.items.append(Item(name="milk"))
    return "added"


async def test_functions_see_an_instance_and_edit_it_in_place() -> None:
    agent = agent_with(add_milk, session_state=Cart)
    output = await agent.arun("go")
    assert output.session_state == {
        "items": [{"name": "milk", "quantity": 1}],
        "owner": None,
        "limits": {},
    }
    assert Cart.model_validate(await agent.aget_session_state()).items == [Item(name="milk")]


async def test_an_instance_gives_the_values_that_new_sessions_start_from() -> None:
    given = Cart(owner="Ann")
    agent = agent_with(add_milk, session_state=given)
    await agent.arun("go")
    assert (await agent.aget_session_state())["owner"] == "Ann"
    assert given == Cart(owner="Ann")
    assert (await agent.aget_session_state("another"))["items"] == []


async def test_members_and_hooks_of_a_team_see_the_team_s_model() -> None:
    seen: list[Any] = []

    def instructions(run_context: RunContext[Cart]) -> str:
        seen.append(run_context.session_state)
        return f"Shop for {run_context.session_state.owner}."

    buyer = agent_with(add_milk, name="buyer", instructions=instructions, session_state=Cart)
    inner = Team([buyer], name="inner", model=delegating("buyer"))
    team = Team([inner], model=delegating("inner"), session_state=Cart(owner="Ann"))
    output = await team.arun("go")
    assert seen == [Cart(owner="Ann")]
    assert output.session_state is not None
    assert output.session_state["items"] == [{"name": "milk", "quantity": 1}]
    request = buyer.model.requests[0]
    assert request.messages[0].content == "Shop for Ann."


def delegating(member: str) -> ScriptedModel:
    return ScriptedModel([tool_call("delegate_task_to_member", member_id=member, task="go"), "done"])


async def test_what_does_not_validate_is_refused_and_told_to_the_model() -> None:
    def spoil(run_context: RunContext[Cart]) -> str:
        run_context.session_state.items.append(Item(name="eggs"))
        run_context.session_state.items[0].quantity = "many"  # type: ignore[assignment]
        run_context.session_state.owner = 7  # type: ignore[assignment]
        return "spoilt"

    agent = agent_with(spoil, session_state=Cart)
    output = await agent.arun("go")
    execution = execution_of(output, "spoil")
    assert execution.tool_call_error
    assert execution.result == (
        "InvalidStateError: session_state/items/0/quantity: Input should be a valid integer, unable to parse "
        "string as an integer, not 'many'; /owner: Input should be a valid string, not 7 (of Cart)"
    )
    assert output.status is RunStatus.completed
    assert output.session_state == initial_state(Cart)


async def test_what_cannot_be_written_at_all_names_its_field() -> None:
    def spoil(run_context: RunContext[Cart]) -> str:
        run_context.session_state.limits = {"a": object()}
        return "spoilt"

    output = await agent_with(spoil, session_state=Cart).arun("go")
    assert str(execution_of(output, "spoil").result).startswith("InvalidStateError: session_state/limits:")


async def test_edits_that_pydantic_converts_are_committed_converted() -> None:
    def loose(run_context: RunContext[Cart]) -> str:
        run_context.session_state.items = [{"name": "tea", "quantity": "3"}]
        return "set"

    output = await agent_with(loose, session_state=Cart).arun("go")
    assert output.session_state is not None
    assert output.session_state["items"] == [{"name": "tea", "quantity": 3}]


async def test_assignment_takes_an_instance_and_refuses_a_dict() -> None:
    def assign(run_context: RunContext[Cart]) -> str:
        with pytest.raises(TypeError, match="must be a Cart, not dict"):
            run_context.session_state = {"owner": "x"}  # type: ignore[assignment]
        run_context.session_state = Cart(owner="Bob")
        return "assigned"

    output = await agent_with(assign, session_state=Cart).arun("go")
    assert output.session_state == {"items": [], "owner": "Bob", "limits": {}}


async def test_a_block_is_typed_too_and_undone_in_place() -> None:
    async def blocks(run_context: RunContext[Cart]) -> str:
        async with run_context.transaction() as state:
            state.owner = "Ann"
        kept = run_context.session_state
        items = kept.items
        with pytest.raises(LookupError), run_context.transaction() as state:
            state.items.append(Item(name="no"))
            state.owner = "no"
            raise LookupError
        assert run_context.session_state is kept
        items.append(Item(name="yes"))
        assert run_context.snapshot() == Cart(owner="Ann", items=[Item(name="yes")])
        return "done"

    output = await agent_with(blocks, session_state=Cart).arun("go")
    assert output.session_state == {"items": [{"name": "yes", "quantity": 1}], "owner": "Ann", "limits": {}}


async def test_a_nested_run_edits_the_very_instance_of_its_caller() -> None:
    agent = agent_with(add_milk, session_id="s", session_state=Cart)

    async def outer(run_context: RunContext[Cart]) -> str:
        state = run_context.session_state
        items = state.items
        items.append(Item(name="first"))
        await agent.arun("go")
        assert [item.name for item in items] == ["first", "milk"]
        items.append(Item(name="last"))
        return "done"

    caller = agent_with(outer, session_id="s", session_state=Cart, db=database_of(agent))
    output = await caller.arun("go")
    assert output.session_state is not None
    assert [item["name"] for item in output.session_state["items"]] == ["first", "milk", "last"]


async def test_a_call_that_only_reads_commits_nothing() -> None:
    class Tagged(BaseModel):
        tags: set[str] = {"d", "b", "a", "c"}
        at: datetime = datetime(2026, 1, 1, tzinfo=UTC)

    def look(run_context: RunContext[Tagged]) -> str:
        return str(len(run_context.session_state.tags))

    agent = agent_with(look, session_state=Tagged)
    await agent.arun("go")
    assert await agent.asession_state_history() == []
    assert (await agent.aget_session_state())["tags"] == ["a", "b", "c", "d"]


# The run's argument, the accessors and the agentic tool.


async def test_the_run_s_argument_is_a_dict_or_what_was_set_of_an_instance() -> None:
    agent = Agent(model=FunctionModel(lambda _: "ok"), session_state=Cart, session_id="s")
    await agent.arun("go", session_state={"owner": "Ann", "limits": {"a": 1}})
    assert (await agent.aget_session_state())["owner"] == "Ann"
    given = Cart(limits={"b": 2})
    given.items.append(Item(name="tea"))
    output = await agent.arun("go", session_state=given)
    assert output.session_state == {
        "items": [{"name": "tea", "quantity": 1}],
        "owner": "Ann",
        "limits": {"a": 1, "b": 2},
    }


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (
            {"ovner": "Ann"},
            InvalidStateError,
            "session_state/ovner: Cart has no field of this name; its fields are: items",
        ),
        ({"owner": 7}, InvalidStateError, "session_state/owner: Input should be a valid string"),
        (Item(name="x"), UsageError, "must be a Cart or a dict here, not Item"),
    ],
)
async def test_an_argument_that_does_not_fit_fails_the_run_and_changes_nothing(
    given: Any, error: type[Exception], message: str
) -> None:
    agent = Agent(model=ScriptedModel([]), session_state=Cart, session_id="s")
    with pytest.raises(error, match=message):
        await agent.arun("go", session_state=given)
    assert await agent.aget_session_state() == initial_state(Cart)
    last = await agent.aget_last_run_output()
    assert last is not None
    assert last.status is RunStatus.error


async def test_overwriting_starts_from_the_defaults() -> None:
    agent = agent_with(add_milk, session_state=Cart, session_id="s", overwrite_db_session_state=True)
    await agent.arun("go")
    output = await agent.arun("go", session_state={"owner": "Ann"})
    assert output.session_state is not None
    assert (output.session_state["owner"], len(output.session_state["items"])) == ("Ann", 1)


async def test_updates_from_outside_are_validated() -> None:
    agent = Agent(session_state=Cart, session_id="s")
    assert (await agent.aupdate_session_state({"owner": "Ann"}))["owner"] == "Ann"
    for updates in ({"owner": 3}, {"nobody": 3}):
        with pytest.raises(InvalidStateError):
            await agent.aupdate_session_state(updates)
    assert (await agent.aget_session_state())["owner"] == "Ann"


async def test_updates_inside_a_tool_work_on_its_instance() -> None:
    async def rename(run_context: RunContext[Cart]) -> str:
        state = run_context.session_state
        await agent.aupdate_session_state({"owner": "Bob"})
        assert state.owner == "Bob"
        state.limits["a"] = 1
        return "renamed"

    agent = agent_with(rename, session_state=Cart)
    output = await agent.arun("go")
    assert output.session_state == {"items": [], "owner": "Bob", "limits": {"a": 1}}


async def test_the_agentic_tool_sets_fields_and_shows_the_state() -> None:
    agent = Agent(
        model=ScriptedModel(
            [
                tool_call("update_session_state", session_state_updates={"owner": "Ann"}),
                tool_call("update_session_state", session_state_updates={"color": "red"}),
                "done",
            ]
        ),
        session_state=Cart,
        enable_agentic_state=True,
    )
    output = await agent.arun("go")
    results = [execution.result for execution in output.tools]
    assert results[0] == 'The session state is now: {"items":[],"owner":"Ann","limits":{}}'
    assert "no field of this name; its fields are: items, owner, limits" in str(results[1])


# What is not a session state.


class Needy(BaseModel):
    name: str
    age: int
    note: str = ""


class Secretive(BaseModel):
    key: SecretStr = SecretStr("sesame")


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (Needy, "session_state=Needy: .* these fields have none: name, age; pass an instance"),
        (Secretive, "Secretive.key changes when it is stored as JSON"),
        (["a"], "session_state must be a dict, a pydantic model class or an instance of one, not list"),
        (int, "not type"),
    ],
)
def test_what_cannot_be_a_session_state_is_refused_at_once(state: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Agent(session_state=state)


def test_a_member_s_model_has_to_be_the_team_s() -> None:
    class Bigger(Cart):
        more: int = 0

    member = Agent(name="buyer", session_state=Cart)
    for state in (None, {"items": []}, Needy(name="x", age=1)):
        team = Team([Team([member], name="inner")], model=ScriptedModel([]), session_state=state)
        with pytest.raises(UsageError, match=r"'buyer'.* session_state=Cart"):
            team.run("go")
    assert Team([member], session_state=Bigger).get_session_state() == initial_state(Bigger)


async def test_a_member_that_a_function_makes_is_checked_when_it_is_made() -> None:
    def members() -> list[Any]:
        return [Team([agent_with(look, name="Deep", session_state=New)], name="Inner")]

    team = Team(members, model=ScriptedModel([]), session_state=Old)
    with pytest.raises(UsageError, match=r"Deep.*give the team session_state=New"):
        await team.arun("go")
    team.session_state = New
    team.model = ScriptedModel(["fine"])
    assert (await team.arun("go", session_id="new")).content == "fine"


def test_a_task_list_needs_a_field() -> None:
    class Tasked(Cart):
        team_tasks: dict[str, Any] = {}

    with pytest.raises(UsageError, match="add the field `team_tasks"):
        Team([Agent(name="a")], mode="tasks", session_state=Cart).get_session_state()
    Team([Agent(name="a")], mode="tasks", session_state=Tasked).get_session_state()


# Exact both ways.


class Color(Enum):
    RED = "r"
    BLUE = 2


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")
    number: int = Field(default=0, alias="partNumber")
    when: datetime | None = Field(
        default=None, validation_alias=AliasChoices("w", "when!"), serialization_alias="zz"
    )


class Everything(BaseModel):
    model_config = ConfigDict(extra="forbid")
    color: Color = Color.RED
    day: date | None = None
    span: timedelta = timedelta(0)
    price: Decimal = Decimal(0)
    id: UUID | None = None
    parts: dict[str, Part] = {}
    tags: frozenset[int] = frozenset()
    pair: tuple[int, str] = (0, "")
    kind: Literal["a", "b"] = "a"
    by_day: dict[date, int] = {}
    ratio: float = 0.0

    @computed_field
    @property
    def count(self) -> int:
        return len(self.parts)


parts = st.builds(Part.model_construct, number=st.integers(), when=st.none() | st.datetimes())
everything = st.builds(
    Everything,
    color=st.sampled_from(Color),
    day=st.none() | st.dates(),
    span=st.timedeltas(timedelta(-9999), timedelta(9999)),
    price=st.decimals(allow_nan=False, allow_infinity=False),
    id=st.none() | st.uuids(),
    parts=st.dictionaries(st.text(max_size=3), parts, max_size=3),
    tags=st.frozensets(st.integers(), max_size=4),
    pair=st.tuples(st.integers(), st.text(max_size=3)),
    by_day=st.dictionaries(st.dates(), st.integers(), max_size=3),
    ratio=st.floats(allow_nan=False, allow_infinity=False),
)


@settings(deadline=None)
@given(everything)
def test_what_is_written_reads_back_the_same(value: Everything) -> None:
    state_type = ModelStateType(Everything)
    tree = state_type.dump(value)
    again = state_type.load(json.dumps(tree).encode())
    assert again == value
    assert state_type.dump(again) == tree
    assert state_type.fit(tree) is tree


def test_the_text_goes_by_the_names_of_the_fields_whatever_aliases_there_are() -> None:
    tree = initial_state(Everything(parts={"a": Part(partNumber=3)}))
    assert tree["parts"] == {"a": {"number": 3, "when": None}}
    assert "count" not in tree


# Old sessions and newer classes.


class Old(BaseModel):
    price: int = 5


class New(BaseModel):
    price: int = 5
    currency: str = "EUR"


def to_cents(state: dict[str, Any]) -> dict[str, Any]:
    state["price"] *= 100
    return state


def look(run_context: RunContext[Any]) -> str:
    return repr(run_context.session_state)


async def test_defaults_fill_in_new_fields_and_are_stored_with_the_next_run(tmp_path: Path) -> None:
    db = SqliteDb(tmp_path / "a.db")
    await agent_with(look, db=db, session_id="s", session_state=Old).arun("go")
    agent = agent_with(look, db=db, session_id="s", session_state=New)
    assert await agent.aget_session_state() == {"price": 5, "currency": "EUR"}
    row = await database_of(agent).load_session("s")
    assert row is not None
    assert row.state == b'{"price":5}'
    output = await agent.arun("go")
    assert execution_of(output, "look").result == "New(price=5, currency='EUR')"
    row = await database_of(agent).load_session("s")
    assert row is not None
    assert row.state == b'{"price":5,"currency":"EUR"}'
    history = await agent.asession_state_history()
    assert [(entry.tool, entry.agent_path) for entry in history] == [("state_defaults", ())]


async def test_migrations_are_applied_once_from_the_version_that_is_stored(tmp_path: Path) -> None:
    db = SqliteDb(tmp_path / "a.db")
    await agent_with(look, db=db, session_id="s", session_state=Old).arun("go")
    migrations = [to_cents, lambda state: {**state, "currency": "USD"}]
    agent = agent_with(look, db=db, session_id="s", session_state=New, state_migrations=migrations)
    assert await agent.aget_session_state() == {"price": 500, "currency": "USD"}
    stream = agent.arun("go", stream=True, stream_events=True)
    started = [event async for event in stream if isinstance(event, RunStartedEvent)]
    assert (started[0].session_state, started[0].revision) == ({"price": 500, "currency": "USD"}, 2)
    await agent.arun("go")
    row = await database_of(agent).load_session("s")
    assert row is not None
    assert (json.loads(row.state), row.state_version) == ({"price": 500, "currency": "USD"}, 2)
    history = await agent.asession_state_history()
    assert [entry.tool for entry in history] == ["state_migrations[0]", "state_migrations[1]"]


async def test_new_sessions_have_the_newest_version() -> None:
    agent = agent_with(look, session_id="s", session_state=New, state_migrations=[to_cents])
    output = await agent.arun("go")
    assert output.session_state == {"price": 5, "currency": "EUR"}
    row = await database_of(agent).load_session("s")
    assert row is not None
    assert row.state_version == 1


async def test_a_fork_from_before_a_migration_is_migrated_in_its_turn() -> None:
    agent = agent_with(look, session_id="s", session_state=Old)
    await agent.aupdate_session_state({"price": 6})
    newer = agent_with(
        look, session_id="s", session_state=Old, state_migrations=[to_cents], db=database_of(agent)
    )
    await newer.arun("go")
    assert await newer.aget_session_state(revision=1) == {"price": 6}
    fork = await newer.afork_session(revision=1)
    assert await newer.aget_session_state(fork) == {"price": 600}
    fork = await newer.afork_session(revision=2)
    assert await newer.aget_session_state(fork) == {"price": 600}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"session_state": New}, "session_state/price: Input should be a valid integer"),
        ({"state_migrations": [to_cents, to_cents]}, r"state_migrations\[0\] failed: KeyError: 'price'"),
        ({"state_migrations": [lambda state: None]}, r"state_migrations\[0\] returned a NoneType"),
    ],
)
async def test_what_cannot_be_loaded_fails_loudly_and_keeps_the_row(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    db = SqliteDb(tmp_path / "a.db")
    stored = {"price": "dear"} if "session_state" in options else {}
    before = Agent(db=db, session_id="s", session_state=stored)
    await before.aupdate_session_state({})
    row = await database_of(before).load_session("s")
    agent = agent_with(look, db=db, session_id="s", **options)
    for attempt in (
        lambda: agent.arun("go"),
        agent.aget_session_state,
        lambda: agent.aupdate_session_state({}),
    ):
        with pytest.raises(InvalidStateError, match=message):
            await attempt()
    assert await db.load_session("s") == row
    assert await agent.asession_state_history() == []
    assert await agent.adelete_session()


async def test_a_state_of_a_newer_version_is_not_touched() -> None:
    newer = agent_with(look, session_id="s", session_state=New, state_migrations=[to_cents])
    await newer.arun("go")
    older = agent_with(look, session_id="s", session_state=New, db=database_of(newer))
    with pytest.raises(InvalidStateError, match="has version 1, written by a newer version"):
        await older.arun("go")
    plain = agent_with(look, session_id="s", db=database_of(newer))
    await plain.arun("go", session_state={"price": 7})
    row = await database_of(newer).load_session("s")
    assert row is not None
    assert row.state_version == 1
    assert (await newer.aget_session_state())["price"] == 7


async def test_a_run_that_joins_a_live_session_with_a_newer_class_brings_it_up_to_date() -> None:
    async def nested() -> str:
        output = await newer.arun("go")
        return str(execution_of(output, "look").result)

    older = agent_with(nested, session_id="s", session_state=Old)
    newer = agent_with(look, session_id="s", session_state=New, db=database_of(older))
    output = await older.arun("go")
    assert execution_of(output, "nested").result == "New(price=5, currency='EUR')"


async def test_a_migration_does_not_hide_in_a_call_that_may_be_undone() -> None:
    async def nested(run_context: RunContext[Old]) -> str:
        run_context.session_state.price = 6
        await newer.arun("go")
        return "never"

    older = agent_with(nested, session_id="s", session_state=Old)
    newer = agent_with(
        look, session_id="s", session_state=Old, state_migrations=[to_cents], db=database_of(older)
    )
    output = await older.arun("go")
    assert "UsageError: the state of session 's' has version 0" in str(execution_of(output, "nested").result)
    assert output.session_state == {"price": 5}


# The stream.


async def test_the_stream_s_patches_are_those_of_the_json() -> None:
    agent = agent_with(add_milk, session_state=Cart)
    stream = agent.arun("go", stream=True, stream_events=True)
    changes = [event async for event in stream if isinstance(event, SessionStateChangedEvent)]
    assert [change.patch for change in changes] == [
        [{"op": "add", "path": "/items/0", "value": {"name": "milk", "quantity": 1}}]
    ]


async def test_a_check_over_several_fields_is_told_without_a_path() -> None:
    class Balanced(BaseModel):
        left: int = 0
        right: int = 0

        @model_validator(mode="after")
        def equal(self) -> Balanced:
            if self.left != self.right:
                raise ValueError("left and right differ")
            return self

    def tilt(run_context: RunContext[Balanced]) -> str:
        run_context.session_state.left = 1
        return "tilted"

    output = await agent_with(tilt, session_state=Balanced).arun("go")
    assert "session_state: Value error, left and right differ" in str(execution_of(output, "tilt").result)


def test_a_context_made_by_hand_holds_the_model() -> None:
    context = RunContext(session_state=Cart())
    assert add_milk(context) == "added"
    assert context.session_state.items == [Item(name="milk")]
