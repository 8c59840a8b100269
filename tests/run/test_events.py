"""The table of events: each class has its names, and can be imported by them."""

from __future__ import annotations

import pickle
from typing import Any, get_args

import pytest

import kern.run
import kern.run.events
from kern.errors import UsageError
from kern.run import BaseRunEvent, Event, EventSource, RunEvent, TeamRunEvent, event_from_dict

CLASSES: tuple[type[BaseRunEvent], ...] = get_args(Event)


def test_every_class_has_a_name_for_agents_and_one_for_teams_and_no_name_is_left() -> None:
    kinds = [cls.kind for cls in CLASSES]
    assert sorted(kinds) == sorted(RunEvent)
    assert sorted(f"Team{kind}" for kind in kinds) == sorted(TeamRunEvent)
    assert [name.name for name in RunEvent] == [name.name for name in TeamRunEvent]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_class_is_exported_and_named_after_what_happened(cls: type[BaseRunEvent]) -> None:
    assert getattr(kern.run, cls.__name__) is cls
    assert cls.__name__ == f"{cls.kind}Event"


def test_a_team_s_event_has_the_team_s_name() -> None:
    for is_team, name in ((False, "RunStarted"), (True, "TeamRunStarted")):
        source = EventSource("r", "s", is_team=is_team)
        assert kern.run.RunStartedEvent(source).event == name


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_a_pickle_that_names_the_class_in_kern_run_events_can_be_read(cls: type[BaseRunEvent]) -> None:
    """Earlier versions had all classes in the module `kern.run.events`."""
    pickled = f"ckern.run.events\n{cls.__name__}\n.".encode()  # protocol 0: the class, by its module and name
    assert pickle.loads(pickled) is cls


@pytest.mark.parametrize(
    "change",
    [
        {"tool": 3},
        {"tool": {}},
        {"tool": None},
        {"tool": {"tool_call_id": 3, "tool_name": "add"}},
        {"path": 7},
    ],
    ids=str,
)
def test_an_event_with_a_damaged_field_is_refused_with_its_name(change: dict[str, Any]) -> None:
    data = {
        "event": "TeamToolCallStarted",
        "run_id": "r",
        "session_id": "s",
        "tool": {"tool_call_id": "c1", "tool_name": "add"},
        **change,
    }
    with pytest.raises(UsageError, match="the TeamToolCallStarted event cannot be read"):
        event_from_dict(data)


def test_an_event_without_a_field_that_it_needs_is_refused() -> None:
    with pytest.raises(UsageError, match="'tool'"):
        event_from_dict({"event": "ToolCallStarted", "run_id": "r", "session_id": "s"})
    with pytest.raises(UsageError, match="run_id"):
        event_from_dict({"event": "RunStarted"})


def test_a_change_event_s_tool_is_a_name_and_comes_back_as_one() -> None:
    event = kern.run.SessionStateChangedEvent(EventSource("r", "s"), tool="add_item", revision=1)
    assert event_from_dict(event.to_dict()) == event
