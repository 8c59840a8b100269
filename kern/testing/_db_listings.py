"""The part of the conformance suite about listing and deleting sessions and runs."""

# the name of a test says what it is for

from __future__ import annotations

from kern.db.base import Db, RunRow, SessionInfo
from kern.testing._db_rows import change_row, run_row, state_commit


class ListingConformance:
    """Tests of listings, page by page, and of deletions. See `kern.testing.db`."""

    # Lists of sessions

    async def test_sessions_are_listed_the_latest_used_first(self, db: Db) -> None:
        for session_id, user_id, now in (("a", "ann", 1.0), ("b", "bob", 2.0), ("c", "ann", 3.0)):
            await db.commit(state_commit(session_id=session_id, user_id=user_id, now=now))
        await db.commit(state_commit(session_id="a", user_id="ann", now=4.0))
        assert names(await db.list_sessions()) == ["a", "c", "b"]
        assert names(await db.list_sessions(limit=2)) == ["a", "c"]
        assert names(await db.list_sessions(limit=0)) == []
        assert names(await db.list_sessions(user_id="ann")) == ["a", "c"]
        assert names(await db.list_sessions(user_id="ann", limit=1)) == ["a"]
        assert names(await db.list_sessions(user_id="nobody")) == []
        assert names(await db.list_sessions(user_id="")) == []

    async def test_a_listed_session_is_described_as_it_is_stored(self, db: Db) -> None:
        await db.commit(state_commit(user_id="ann", now=1.5))
        await db.commit(state_commit(user_id="ann", now=2.5))
        await db.describe_session("s", name="Shopping", summary="We bought milk.")
        (info,) = await db.list_sessions()
        assert info == SessionInfo(
            session_id="s",
            user_id="ann",
            name="Shopping",
            summary="We bought milk.",
            created_at=1.5,
            updated_at=2.5,
            position=info.position,
        )

    async def test_pages_of_sessions_have_each_session_once_whatever_clocks_say(self, db: Db) -> None:
        for n in range(7):  # all of one moment
            user_id = "ann" if n % 2 else None
            await db.commit(state_commit(session_id=f"s{n}", user_id=user_id, now=1.0))
        everything = ["s6", "s5", "s4", "s3", "s2", "s1", "s0"]
        for limit in (1, 2, 3, 7, 100):
            assert await session_pages(db, limit) == everything
        assert await session_pages(db, 2, "ann") == ["s5", "s3", "s1"]

    async def test_a_session_that_is_used_meanwhile_is_not_listed_twice(self, db: Db) -> None:
        for n in range(5):
            await db.commit(state_commit(session_id=f"s{n}"))
        first = await db.list_sessions(limit=2)
        for session_id in ("s4", "s1", "new"):
            await db.commit(state_commit(session_id=session_id))
        second = await db.list_sessions(limit=2, before=first[-1].position)
        await db.delete_session(second[-1].session_id)
        third = await db.list_sessions(limit=2, before=second[-1].position)
        assert [names(page) for page in (first, second, third)] == [["s4", "s3"], ["s2", "s0"], []]
        assert names(await db.list_sessions(limit=2)) == ["new", "s1"]

    async def test_a_clock_that_is_set_back_does_not_change_the_order_of_sessions(self, db: Db) -> None:
        for now, session_id in enumerate("abc"):
            await db.commit(state_commit(session_id=session_id, now=10.0 - now))
        await db.commit(state_commit(None, session_id="a", runs=[run_row("r", session_id="a")], now=1.0))
        assert names(await db.list_sessions()) == ["a", "c", "b"]

    # Lists of runs

    async def test_runs_of_all_sessions_are_listed_the_newest_first(self, db: Db) -> None:
        await put_runs(db)
        assert ids(await db.list_runs()) == ["r5", "r4", "r3", "r2", "r1", "r0"]
        assert ids(await db.list_runs(limit=2)) == ["r5", "r4"]
        assert ids(await db.list_runs(limit=0)) == []
        (newest,) = await db.list_runs(limit=1)
        assert newest == await db.load_run("r5")

    async def test_runs_are_chosen_by_session_user_and_status(self, db: Db) -> None:
        await put_runs(db)
        assert ids(await db.list_runs(session_id="anns")) == ["r4", "r2", "r0"]
        assert ids(await db.list_runs(user_id="ann")) == ["r5", "r4", "r2", "r0"]
        assert ids(await db.list_runs(user_id="bob")) == ["r3"]
        assert ids(await db.list_runs(status="PAUSED")) == ["r5", "r3", "r2", "r1"]
        assert ids(await db.list_runs(status="COMPLETED")) == ["r4", "r0"]
        assert ids(await db.list_runs(status="PAUSED", user_id="ann")) == ["r5", "r2"]
        assert ids(await db.list_runs(status="COMPLETED", user_id="ann")) == ["r4", "r0"]
        assert ids(await db.list_runs(status="PAUSED", session_id="anns")) == ["r2"]
        assert ids(await db.list_runs(session_id="anns", user_id="ann", status="COMPLETED")) == ["r4", "r0"]

    async def test_runs_that_nobody_has_are_not_listed(self, db: Db) -> None:
        await put_runs(db)
        assert ids(await db.list_runs(session_id="anns", user_id="bob")) == []
        assert ids(await db.list_runs(session_id="nobodys", user_id="ann")) == []
        assert ids(await db.list_runs(user_id="carl")) == []
        assert ids(await db.list_runs(user_id="")) == []
        assert ids(await db.list_runs(session_id="unknown")) == []
        assert ids(await db.list_runs(status="ERROR")) == []
        assert ids(await db.list_runs(status="ERROR", user_id="ann")) == []

    async def test_pages_of_runs_have_each_run_once_whatever_clocks_say(self, db: Db) -> None:
        await put_runs(db)
        for limit in (1, 2, 4, 100):
            assert await run_pages(db, limit) == ["r5", "r4", "r3", "r2", "r1", "r0"]
            assert await run_pages(db, limit, status="PAUSED") == ["r5", "r3", "r2", "r1"]
            assert await run_pages(db, limit, status="PAUSED", user_id="ann") == ["r5", "r2"]
            assert await run_pages(db, limit, status="COMPLETED", user_id="ann") == ["r4", "r0"]
            assert await run_pages(db, limit, session_id="anns") == ["r4", "r2", "r0"]
            assert await run_pages(db, limit, user_id="ann") == ["r5", "r4", "r2", "r0"]

    async def test_a_page_may_begin_at_a_run_that_the_list_itself_leaves_out(self, db: Db) -> None:
        await put_runs(db)
        assert ids(await db.list_runs(session_id="anns", before="r3")) == ["r2", "r0"]
        assert ids(await db.list_runs(user_id="ann", before="r3")) == ["r2", "r0"]
        assert ids(await db.list_runs(status="COMPLETED", before="m2")) == ["r0"]

    async def test_a_run_that_goes_on_keeps_its_place_in_a_list_and_changes_its_status(self, db: Db) -> None:
        await put_runs(db)
        continued = run_row("r1", session_id="nobodys", generation=1)
        await db.commit(state_commit(session_id="nobodys", runs=[continued], now=9.0))
        assert ids(await db.list_runs()) == ["r5", "r4", "r3", "r2", "r1", "r0"]
        assert ids(await db.list_runs(status="PAUSED")) == ["r5", "r3", "r2"]
        assert ids(await db.list_runs(status="COMPLETED")) == ["r4", "r1", "r0"]
        assert ids(await db.list_runs(status="PAUSED", before="r1")) == []

    async def test_after_a_run_that_is_gone_nothing_is_listed(self, db: Db) -> None:
        await put_runs(db)
        await db.delete_session("bobs")
        assert ids(await db.list_runs(before="r3")) == []
        assert ids(await db.list_runs(before="unknown", status="PAUSED")) == []
        assert ids(await db.list_runs(before="r4")) == ["r2", "r1", "r0"]

    # Deleting

    async def test_a_deleted_session_leaves_nothing(self, db: Db) -> None:
        await db.commit(state_commit(runs=[run_row("r")], changes=[change_row(1)]))
        await db.commit(state_commit(session_id="other", runs=[run_row("o", session_id="other")]))
        assert await db.delete_session("s")
        assert await db.load_session("s") is None
        assert await db.load_runs("s", top_level=False) == []
        assert await db.load_run("r") is None
        assert await db.load_changes("s") == []
        assert await db.load_run("o") is not None
        assert not await db.delete_session("s")
        again = await db.commit(state_commit(user_id="another", runs=[run_row("r")]))
        assert not again.repeated
        assert again.row.version == 1

    async def test_a_deleted_user_leaves_nothing_and_others_all(self, db: Db) -> None:
        await put_runs(db)
        await db.commit(
            state_commit(
                session_id="anns",
                user_id="ann",
                runs=[run_row("media", session_id="anns", media={"aa": b"x"})],
                changes=[change_row(4, session_id="anns")],
            )
        )
        assert await db.delete_user("ann") == 2
        assert names(await db.list_sessions()) == ["bobs", "nobodys"]
        assert ids(await db.list_runs()) == ["r3", "r1"]
        for session_id in ("anns", "anns too"):
            assert await db.load_session(session_id) is None
            assert await db.load_runs(session_id, top_level=False) == []
            assert await db.load_changes(session_id) == []
        assert await db.load_run("m4") is None
        assert await db.load_media("anns", ["aa"]) == {}
        assert await db.delete_user("ann") == 0
        assert await db.delete_user("") == 0
        again = await db.commit(
            state_commit(session_id="anns", user_id="bob", runs=[run_row("r0", session_id="anns")])
        )
        assert not again.repeated
        assert again.row.version == 1

    async def test_requests_to_cancel_of_a_deleted_user_are_gone(self, db: Db) -> None:
        await db.request_cancel("a", user_id="ann")
        await db.request_cancel("b", user_id="bob")
        await db.request_cancel("c")
        await db.delete_user("ann")
        await db.delete_user("")
        owners = {"a": "ann", "b": "bob", "c": "ann"}
        assert await db.cancel_requested(["a", "b", "c"], owners=owners) == {"b", "c"}


async def put_runs(db: Db) -> None:
    """Store six runs, each with a member's run, in four sessions of two users and of no user."""
    for n, (session_id, user_id, status) in enumerate(
        (
            ("anns", "ann", "COMPLETED"),
            ("nobodys", None, "PAUSED"),
            ("anns", "ann", "PAUSED"),
            ("bobs", "bob", "PAUSED"),
            ("anns", "ann", "COMPLETED"),
            ("anns too", "ann", "PAUSED"),
        )
    ):
        runs = [
            run_row(f"r{n}", session_id=session_id, status=status),
            run_row(f"m{n}", session_id=session_id, status=status, parent_run_id=f"r{n}"),
        ]
        await db.commit(state_commit(session_id=session_id, user_id=user_id, runs=runs))


async def session_pages(db: Db, limit: int, user_id: str | None = None) -> list[str]:
    """All sessions, page by page."""
    listed: list[SessionInfo] = []
    while page := await db.list_sessions(
        user_id=user_id, limit=limit, before=listed[-1].position if listed else None
    ):
        assert len(page) <= limit
        listed += page
    return names(listed)


async def run_pages(
    db: Db,
    limit: int,
    session_id: str | None = None,
    user_id: str | None = None,
    status: str | None = None,
) -> list[str]:
    """All runs that match, page by page."""
    listed: list[RunRow] = []
    while page := await db.list_runs(
        session_id=session_id,
        user_id=user_id,
        status=status,
        limit=limit,
        before=listed[-1].run_id if listed else None,
    ):
        assert len(page) <= limit
        listed += page
    return ids(listed)


def names(sessions: list[SessionInfo]) -> list[str]:
    """The ids of the sessions."""
    return [session.session_id for session in sessions]


def ids(runs: list[RunRow]) -> list[str]:
    """The ids of the runs."""
    return [run.run_id for run in runs]
