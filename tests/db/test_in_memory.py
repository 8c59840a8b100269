from __future__ import annotations

import pytest

from kern.db import InMemoryDb
from kern.testing.db import DbConformance, JournalConformance, run_row, state_commit


class TestInMemoryDb(DbConformance, JournalConformance):
    @pytest.fixture
    def db(self) -> InMemoryDb:
        return InMemoryDb()


async def test_two_objects_share_nothing() -> None:
    one, two = InMemoryDb(), InMemoryDb()
    assert one.identity != two.identity
    await one.commit(state_commit(runs=[run_row("r")]))
    assert await two.load_session("s") is None
    assert await two.load_run("r") is None
