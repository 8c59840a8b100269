"""The table of events: each class has its names, and can be imported by them."""

from __future__ import annotations

from typing import get_args

import pytest

import kern.run
from kern.run import BaseRunEvent, Event, EventSource, RunEvent, TeamRunEvent

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
