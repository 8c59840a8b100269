"""The part of the conformance suite about commits: all or nothing, and nothing twice."""

# the name of a test says what it is for

from __future__ import annotations

import asyncio

from kern.db.base import Db, SessionRow
from kern.errors import SessionDeletedError, SessionOwnershipError, StoreError
from kern.testing._db_rows import change_row, raises, run_row, state_commit


class CommitConformance:
    """Tests of commits. See `kern.testing.db`."""

    # Generations of a session

    async def test_a_session_that_was_deleted_takes_no_commit_of_who_knew_it(self, db: Db) -> None:
        known = (await db.commit(state_commit(b'{"a":1}'))).row
        assert (await db.commit(state_commit(b'{"a":2}', known=known))).row.version == 2
        assert await db.delete_session("s")
        late = state_commit(b'{"a":3}', runs=[run_row("r")], changes=[change_row(3)], known=known)
        with raises(SessionDeletedError) as caught:
            await db.commit(late)
        assert isinstance(caught[0], SessionDeletedError)
        assert caught[0].session_id == "s"
        assert await db.load_session("s") is None
        assert await db.load_run("r") is None
        assert await db.load_changes("s") == []

    async def test_a_new_session_of_a_deleted_ones_name_is_another_generation(self, db: Db) -> None:
        known = (await db.commit(state_commit(b'{"a":1}'))).row
        await db.delete_session("s")
        new = (await db.commit(state_commit(b'{"b":1}'))).row
        assert new.generation != known.generation
        assert await db.load_session("s") == new
        with raises(SessionDeletedError):
            await db.commit(state_commit(b'{"a":2}', runs=[run_row("r")], known=known))
        assert await db.load_session("s") == new
        assert await db.load_run("r") is None
        assert (await db.commit(state_commit(b'{"b":2}', known=new))).row.generation == new.generation

    async def test_a_session_that_another_has_made_meanwhile_takes_the_commit(self, db: Db) -> None:
        await db.commit(state_commit(b'{"a":1}'))
        assert (await db.commit(state_commit(b'{"a":2}', known=None))).row.version == 2

    # Commits that come twice

    async def test_a_commit_whose_answer_was_lost_may_be_made_again(self, db: Db) -> None:
        first = state_commit(b'{"a":1}', changes=[change_row(1)])
        done = await db.commit(first)
        again = await db.commit(first)
        assert again.repeated
        assert again.row == done.row
        known = done.row
        second = state_commit(b'{"a":2}', changes=[change_row(2)], known=known)
        await db.commit(second)
        await db.commit(state_commit(b'{"a":3}', runs=[run_row("r")], changes=[change_row(3)]))
        assert (await db.commit(second)).repeated
        assert [change.revision for change in await db.load_changes("s")] == [1, 2, 3]
        row = await db.load_session("s")
        assert row is not None
        assert (row.state, row.version) == (b'{"a":3}', 3)

    # Ownership and atomicity

    async def test_another_user_is_refused_and_nothing_is_written(self, db: Db) -> None:
        await db.commit(state_commit(b'{"a":1}', session_id="anns", user_id="ann"))
        await db.commit(state_commit(b'{"a":1}', session_id="nobodys"))
        for session_id, user_id in (("anns", "bob"), ("anns", None), ("nobodys", "ann")):
            before = await db.load_session(session_id)
            with raises(SessionOwnershipError) as caught:
                await db.commit(
                    state_commit(
                        b'{"a":2}',
                        session_id=session_id,
                        user_id=user_id,
                        runs=[run_row("r", session_id=session_id)],
                        changes=[change_row(2, session_id=session_id)],
                    )
                )
            assert isinstance(caught[0], SessionOwnershipError)
            assert caught[0].session_id == session_id
            assert await db.load_session(session_id) == before
            assert await db.load_run("r") is None
            assert await db.load_changes(session_id) == []

    async def test_what_the_resolver_raises_undoes_the_commit_and_arrives_as_it_is(self, db: Db) -> None:
        before = (await db.commit(state_commit(b'{"a":1}'))).row
        error = LookupError("no merge")

        def fail(row: SessionRow | None) -> None:
            raise error

        with raises(LookupError) as caught:
            await db.commit(state_commit(b'{"a":2}', runs=[run_row("r")], changes=[change_row(2)], seen=fail))
        assert caught[0] is error
        assert await db.load_session("s") == before
        assert await db.load_run("r") is None
        assert await db.load_changes("s") == []
        assert (await db.commit(state_commit(b'{"a":3}'))).row.version == 2

    async def test_a_resolver_that_raises_stop_iteration_does_not_hang(self, db: Db) -> None:
        def fail(row: SessionRow | None) -> None:
            next(iter(()))

        with raises(RuntimeError):
            await db.commit(state_commit(seen=fail))
        assert await db.load_session("s") is None

    async def test_a_run_id_of_another_session_is_refused_and_nothing_is_written(self, db: Db) -> None:
        await db.commit(state_commit(session_id="other", runs=[run_row("r", session_id="other")]))
        for runs in ([run_row("r")], [run_row("new"), run_row("r")]):
            with raises(StoreError):
                await db.commit(state_commit(b'{"a":1}', runs=runs, changes=[change_row(1)]))
            assert await db.load_session("s") is None
            assert await db.load_runs("s") == []
            assert await db.load_changes("s") == []
        run = await db.load_run("r")
        assert run is not None
        assert run.session_id == "other"

    async def test_a_cancelled_commit_writes_all_or_nothing(self, db: Db) -> None:
        for steps in range(8):
            session_id = f"s{steps}"
            commit = state_commit(
                b'{"a":1}', session_id=session_id, runs=[run_row(f"r{steps}", session_id=session_id)]
            )
            task = asyncio.create_task(db.commit(commit))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            written = await db.load_session(session_id) is not None
            assert written == (await db.load_run(f"r{steps}") is not None)
            assert written or task.cancelled()
        assert not (await db.commit(state_commit())).repeated  # nothing is left held
