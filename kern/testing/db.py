"""The conformance suite of the database port: a `Db` is done when it passes.

Subclass `DbConformance` in a test module, and give it a fixture `db`; no part of it is optional:

    class TestMyDb(DbConformance):
        @pytest.fixture
        async def db(self):
            db = MyDb(...)  # empty, or with tables of its own
            yield db
            await db.aclose()

A database that several processes can use (`Db.shared`) has to be picklable, as the object that opens the same
database elsewhere: the suite starts processes.

A database that keeps the steps of runs (`kern.db.journals.JournalDb`) passes `JournalConformance` as well.

The tests are coroutines: run them with anyio's pytest plugin, or with pytest-asyncio, in their auto modes.
This module itself does not import pytest, and asserts with plain `assert`. For pytest's detailed messages,
put `pytest_plugins = ["kern.testing.pytest_plugin"]` into a conftest.
"""

# ruff: noqa: D102  # the name of a test says what it is for

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace

from kern.db.base import ChangeRow, Db, SessionRow
from kern.errors import SessionOwnershipError
from kern.testing._db_commits import CommitConformance
from kern.testing._db_journals import JournalConformance
from kern.testing._db_listings import ListingConformance
from kern.testing._db_rows import change_row, counting_commit, raises, run_row, state_commit
from kern.testing._db_sharing import SharingConformance

__all__ = ["DbConformance", "JournalConformance", "change_row", "counting_commit", "run_row", "state_commit"]


class DbConformance(CommitConformance, ListingConformance, SharingConformance):
    """What every database does. See the module's docstring."""

    # Sessions

    async def test_an_unknown_session_is_none(self, db: Db) -> None:
        assert await db.load_session("s") is None

    async def test_the_first_commit_makes_the_session(self, db: Db) -> None:
        seen: list[SessionRow | None] = []
        done = await db.commit(
            state_commit(b'{"a":1}', user_id="ann", state_version=3, now=5.5, seen=seen.append)
        )
        assert seen[-1] is None
        assert not done.repeated
        assert done.row == SessionRow(
            session_id="s",
            user_id="ann",
            state=b'{"a":1}',
            state_version=3,
            revision=1,
            version=1,
            created_at=5.5,
            updated_at=5.5,
        )
        assert await db.load_session("s") == done.row

    async def test_a_later_commit_is_resolved_with_the_stored_row(self, db: Db) -> None:
        first = await db.commit(state_commit(b'{"a":1}', now=1.0))
        seen: list[SessionRow | None] = []
        second = await db.commit(state_commit(b'{"a":2}', now=2.0, seen=seen.append))
        assert seen[-1] == first.row
        assert (second.row.state, second.row.version, second.row.revision) == (b'{"a":2}', 2, 2)
        assert (second.row.created_at, second.row.updated_at) == (1.0, 2.0)
        assert await db.load_session("s") == second.row

    async def test_a_commit_without_state_leaves_state_and_version(self, db: Db) -> None:
        await db.commit(state_commit(b'{"a":1}', state_version=2, now=1.0))
        done = await db.commit(state_commit(None, runs=[run_row("r")], now=2.0))
        assert (done.row.state, done.row.version, done.row.state_version) == (b'{"a":1}', 1, 2)
        assert (done.row.revision, done.row.updated_at) == (2, 2.0)
        assert await db.load_session("s") == done.row
        assert await db.load_run("r") is not None

    async def test_a_first_commit_without_state_makes_an_empty_one(self, db: Db) -> None:
        done = await db.commit(state_commit(None))
        assert (done.row.state, done.row.version) == (b"{}", 0)
        assert await db.load_session("s") == done.row

    async def test_json_comes_back_byte_for_byte(self, db: Db) -> None:
        text = json.dumps({"ä": "\U0001f6d2 \u2028", "nul": "\0", "long": "x" * 300_000}, ensure_ascii=False)
        data = ("  " + text + "\n").encode()
        await db.commit(
            state_commit(data, runs=[run_row("r", data=data)], changes=[change_row(1, patch=data)])
        )
        session, run, changes = await db.load_session("s"), await db.load_run("r"), await db.load_changes("s")
        assert session is not None
        assert run is not None
        assert session.state == run.data == changes[0].patch == data

    async def test_sessions_are_apart(self, db: Db) -> None:
        await db.commit(state_commit(b'{"a":1}', session_id="one", runs=[run_row("1", session_id="one")]))
        await db.commit(state_commit(b'{"a":2}', session_id="two", runs=[run_row("2", session_id="two")]))
        one = await db.load_session("one")
        assert one is not None
        assert one.state == b'{"a":1}'
        assert [run.run_id for run in await db.load_runs("two")] == ["2"]

    async def test_a_description_changes_nothing_else(self, db: Db) -> None:
        before = (await db.commit(state_commit(b'{"a":1}'))).row
        assert await db.describe_session("s", name="Shopping")
        assert await db.describe_session("s", summary="We bought milk.")
        row = await db.load_session("s")
        assert row is not None
        assert (row.name, row.summary) == ("Shopping", "We bought milk.")
        assert (row.state, row.version, row.revision) == (before.state, before.version, before.revision)
        after = (await db.commit(state_commit(b'{"a":2}'))).row
        assert (after.name, after.summary) == ("Shopping", "We bought milk.")

    async def test_a_summary_that_a_new_one_does_not_go_on_from_is_kept(self, db: Db) -> None:
        first = (await db.commit(replace(state_commit(b"{}"), summary="zero"))).row
        ours = replace(state_commit(b"{}", known=first), summary_bases=frozenset({None, "zero"}))
        assert (await db.commit(replace(ours, id="one", summary="zero, one"))).row.summary == "zero, one"
        assert (await db.commit(replace(ours, id="two", summary="zero, two"))).row.summary == (
            "zero, one\n\nzero, two"
        )
        row = await db.load_session("s")
        assert row is not None
        assert row.summary == "zero, one\n\nzero, two"

    async def test_an_unknown_session_cannot_be_described(self, db: Db) -> None:
        assert not await db.describe_session("s", name="Shopping")
        assert await db.load_session("s") is None

    # Runs

    async def test_a_run_comes_back_as_it_was(self, db: Db) -> None:
        run = run_row(
            "r", parent_run_id="p", status="PAUSED", generation=2, data=b'{"x": 1}', created_at=12345.678
        )
        await db.commit(state_commit(runs=[run_row("p"), run]))
        assert await db.load_run("r") == run
        assert await db.load_runs("s", top_level=False) == [run_row("p"), run]
        assert await db.load_run("unknown") is None

    async def test_a_repeated_commit_does_nothing(self, db: Db) -> None:
        first = state_commit(b'{"a":1}', runs=[run_row("r"), run_row("m", parent_run_id="r")])
        await db.commit(first)
        stored = (await db.commit(state_commit(b'{"a":2}', now=2.0))).row
        again = state_commit(b'{"a":3}', runs=first.runs, changes=[change_row(3)], now=3.0)
        done = await db.commit(again)
        assert done.repeated
        assert done.row == stored
        assert await db.load_session("s") == stored
        assert await db.load_changes("s") == []
        assert len(await db.load_runs("s", top_level=False)) == 2

    async def test_a_later_generation_replaces_the_run_in_its_place(self, db: Db) -> None:
        await db.commit(state_commit(runs=[run_row("r", status="PAUSED", created_at=1.0)]))
        await db.commit(state_commit(runs=[run_row("next", created_at=2.0)]))
        continued = run_row("r", generation=1, data=b'{"done":true}', created_at=1.0)
        assert not (await db.commit(state_commit(runs=[continued]))).repeated
        assert await db.load_runs("s") == [continued, run_row("next", created_at=2.0)]
        for generation in (0, 1):
            late = run_row("r", generation=generation, data=b'{"late":true}')
            assert (await db.commit(state_commit(runs=[late]))).repeated
        assert await db.load_run("r") == continued

    async def test_a_failed_run_that_is_tried_again_is_replaced_with_its_end(self, db: Db) -> None:
        await db.commit(state_commit(runs=[run_row("r", status="ERROR"), run_row("m", parent_run_id="r")]))
        await db.commit(state_commit(runs=[run_row("next")]))
        again = run_row("r", generation=1, created_at=9.0)
        done = await db.commit(state_commit(b'{"a":1}', runs=[again, run_row("m2", parent_run_id="r")]))
        assert not done.repeated
        assert await db.load_runs("s") == [again, run_row("next")]
        late = run_row("r", generation=1, data=b'{"late":true}')  # of one who tried at the same time
        assert (await db.commit(state_commit(b'{"a":2}', runs=[late]))).repeated

    async def test_members_rows_that_are_present_do_not_hinder_a_continued_run(self, db: Db) -> None:
        member = run_row("m", parent_run_id="r", data=b'{"m":0}')
        await db.commit(state_commit(runs=[run_row("r", status="PAUSED"), member]))
        continued = run_row("r", generation=1)
        other = run_row("m", parent_run_id="r", data=b'{"m":1}')  # of the same generation: not newer
        late = run_row("m2", parent_run_id="r")
        done = await db.commit(state_commit(b'{"a":1}', runs=[continued, other, late]))
        assert not done.repeated
        assert done.row.state == b'{"a":1}'
        assert await db.load_runs("s", top_level=False) == [continued, member, late]

    async def test_the_newest_runs_come_the_oldest_of_them_first(self, db: Db) -> None:
        for run_id, created_at in (("a", 3.0), ("b", 1.0), ("c", 4.0), ("d", 2.0)):  # whatever clocks say
            await db.commit(state_commit(runs=[run_row(run_id, created_at=created_at)], now=created_at))
        assert [run.run_id for run in await db.load_runs("s")] == ["a", "b", "c", "d"]
        assert [run.run_id for run in await db.load_runs("s", limit=2)] == ["c", "d"]
        assert [run.run_id for run in await db.load_runs("s", limit=9)] == ["a", "b", "c", "d"]
        assert await db.load_runs("s", limit=0) == []
        assert await db.load_runs("unknown") == []

    async def test_runs_of_one_moment_are_in_the_order_of_insertion(self, db: Db) -> None:
        await db.commit(state_commit(runs=[run_row("z"), run_row("y")]))
        await db.commit(state_commit(runs=[run_row("x")]))
        assert [run.run_id for run in await db.load_runs("s")] == ["z", "y", "x"]
        assert [run.run_id for run in await db.load_runs("s", limit=2)] == ["y", "x"]

    async def test_runs_are_chosen_by_level_and_runner(self, db: Db) -> None:
        for n in range(3):
            team, member = f"t{n}", f"m{n}"
            runs = [run_row(team, runner_id="team", created_at=2.0 * n)]
            runs.append(run_row(member, runner_id="buyer", parent_run_id=team, created_at=2.0 * n + 1))
            await db.commit(state_commit(runs=runs))

        async def loaded(
            limit: int | None = None, runner_id: str | None = None, top: bool = True
        ) -> list[str]:
            runs = await db.load_runs("s", limit=limit, runner_id=runner_id, top_level=top)
            return [run.run_id for run in runs]

        assert await loaded() == ["t0", "t1", "t2"]
        assert await loaded(2) == ["t1", "t2"]
        assert await loaded(3, top=False) == ["m1", "t2", "m2"]
        assert await loaded(2, "buyer", top=False) == ["m1", "m2"]
        assert await loaded(runner_id="buyer") == []
        assert await loaded(1, "team") == ["t2"]

    # Media of runs

    async def test_media_are_stored_once_with_the_session_and_come_back_by_their_hashes(self, db: Db) -> None:
        blob = bytes(range(256)) * 1000
        await db.commit(state_commit(runs=[run_row("r", media={"aa": blob, "bb": b""})]))
        await db.commit(state_commit(runs=[run_row("q", media={"aa": blob})]))
        assert await db.load_media("s", ["aa", "bb", "cc"]) == {"aa": blob, "bb": b""}
        assert await db.load_media("s", []) == {}
        assert await db.load_media("other", ["aa"]) == {}
        run = await db.load_run("r")
        assert run is not None
        assert run.media == {}

    async def test_media_are_deleted_with_their_session_alone(self, db: Db) -> None:
        for session_id in ("s", "other"):
            run = run_row(session_id, session_id=session_id, media={"aa": session_id.encode()})
            await db.commit(state_commit(session_id=session_id, runs=[run]))
        await db.delete_session("s")
        assert await db.load_media("s", ["aa"]) == {}
        assert await db.load_media("other", ["aa"]) == {"aa": b"other"}

    async def test_media_of_a_commit_that_is_refused_are_not_stored(self, db: Db) -> None:
        await db.commit(state_commit(user_id="ann"))
        with raises(SessionOwnershipError):
            await db.commit(state_commit(user_id="bob", runs=[run_row("r", media={"aa": b"x"})]))
        assert await db.load_media("s", ["aa"]) == {}

    # The log of changes

    async def test_changes_come_back_oldest_first(self, db: Db) -> None:
        one, two, three = (change_row(n, patch=b'[{"op":"add"}]') for n in (1, 2, 3))
        bare = ChangeRow(
            session_id="s",
            revision=4,
            patch=b"[]",
            agent_path=b"[]",
            run_id=None,
            tool=None,
            tool_call_id=None,
            created_at=4.5,
        )
        await db.commit(state_commit(changes=[one, two]))
        await db.commit(state_commit(changes=[three, bare]))
        assert await db.load_changes("s") == [one, two, three, bare]
        assert await db.load_changes("s", after=2) == [three, bare]
        assert await db.load_changes("s", after=4) == []
        assert await db.load_changes("unknown") == []

    # Leases and requests to cancel

    async def test_a_lease_has_one_owner(self, db: Db) -> None:
        assert await db.acquire_lease("s", "a", 60.0)
        assert not await db.acquire_lease("s", "b", 60.0)
        assert await db.acquire_lease("s", "a", 60.0)
        assert await db.acquire_lease("other", "b", 60.0)
        await db.release_lease("s", "b")
        assert not await db.acquire_lease("s", "b", 60.0)
        await db.release_lease("s", "a")
        assert await db.acquire_lease("s", "b", 60.0)
        assert not await db.acquire_lease("s", "a", 60.0)

    async def test_a_lease_expires(self, db: Db) -> None:
        assert await db.acquire_lease("s", "a", 0.05)
        while not await db.acquire_lease("s", "b", 60.0):  # noqa: ASYNC110  # there is no event to wait for
            await asyncio.sleep(0.01)
        assert not await db.acquire_lease("s", "a", 60.0)

    async def test_leases_are_told_apart_by_their_whole_names(self, db: Db) -> None:
        for name in ("run:1", "session:run:1", "", "\u00e4", "run:1 "):
            assert await db.acquire_lease(name, name, 60.0)

    async def test_a_lease_is_given_to_one_of_many(self, db: Db) -> None:
        given = await asyncio.gather(*(db.acquire_lease("s", f"owner {n}", 60.0) for n in range(10)))
        assert given.count(True) == 1

    async def test_a_request_to_cancel_is_found(self, db: Db) -> None:
        assert await db.cancel_requested(["a", "b"]) == set()
        await db.request_cancel("b")
        await db.request_cancel("b")
        await db.request_cancel("c")
        assert await db.cancel_requested(["a", "b"]) == {"b"}
        assert await db.cancel_requested([]) == set()

    async def test_a_request_to_cancel_is_found_once(self, db: Db) -> None:
        await db.request_cancel("a")
        await db.request_cancel("b")
        assert await db.cancel_requested(["a"]) == {"a"}
        assert await db.cancel_requested(["a", "b"]) == {"b"}

    async def test_a_request_to_cancel_in_a_user_s_name_counts_for_that_user_s_run(self, db: Db) -> None:
        await db.request_cancel("a", user_id="mallory")
        await db.request_cancel("b", user_id="")
        assert await db.cancel_requested(["a", "b"]) == set()
        assert await db.cancel_requested(["a", "b"], owners={"a": "ann", "b": None}) == set()
        assert await db.cancel_requested(["a", "b"], owners={"a": "mallory", "b": ""}) == {"a", "b"}

    async def test_a_request_to_cancel_that_is_older_than_the_run_is_dropped(self, db: Db) -> None:
        began = time.monotonic()
        await db.request_cancel("a")
        await db.request_cancel("b")
        await asyncio.sleep(0.02)
        assert await db.cancel_requested(["a", "b"], since={"a": time.monotonic(), "b": began}) == {"b"}
        assert await db.cancel_requested(["a", "b"]) == set()

    async def test_a_run_that_has_ended_takes_the_requests_to_cancel_it_along(self, db: Db) -> None:
        for name in ("ended", "waits"):
            await db.request_cancel(name)
            await db.request_cancel(name, user_id="mallory")
        waits = replace(run_row("waits"), status="PAUSED")
        await db.commit(state_commit(runs=[run_row("ended"), waits]))
        assert await db.cancel_requested(["ended", "waits"]) == {"waits"}
        assert await db.cancel_requested(["ended"], owners={"ended": "mallory"}) == set()

    async def test_a_session_and_a_run_are_loaded_together(self, db: Db) -> None:
        await db.commit(state_commit(b'{"a":1}', runs=[run_row("r")]))
        assert await db.load_session_and_run("s", "r") == (await db.load_session("s"), run_row("r"))
        assert await db.load_session_and_run("unknown", "r") == (None, run_row("r"))
        assert await db.load_session_and_run("s", "unknown") == (await db.load_session("s"), None)

    # One object for many

    async def test_commits_of_many_tasks_all_count(self, db: Db) -> None:
        await asyncio.gather(*(db.commit(counting_commit()) for _ in range(30)))
        row = await db.load_session("s")
        assert row is not None
        assert (row.state, row.version, row.revision) == (b'{"count":30}', 30, 30)

    async def test_commits_of_many_event_loops_all_count(self, db: Db) -> None:
        async def work() -> None:
            for _ in range(10):
                await db.commit(counting_commit())
                assert await db.load_session("s") is not None
            await db.aclose()

        await asyncio.gather(
            db.commit(counting_commit()), *(asyncio.to_thread(asyncio.run, work()) for _ in range(4))
        )
        row = await db.load_session("s")
        assert row is not None
        assert (row.state, row.version) == (b'{"count":41}', 41)

    async def test_it_can_be_used_after_it_was_closed(self, db: Db) -> None:
        await db.commit(state_commit(b'{"a":1}'))
        await db.aclose()
        await db.aclose()
        row = await db.load_session("s")
        assert row is not None
        assert row.state == b'{"a":1}'

    async def test_its_identity_is_hashable_and_stays(self, db: Db) -> None:
        before = db.identity
        await db.commit(state_commit())
        assert db.identity == before
        assert hash(db.identity) == hash(before)
