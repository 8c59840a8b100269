"""The conformance suite of databases that keep the steps of runs."""

# the name of a test says what it is for

from __future__ import annotations

import asyncio
from dataclasses import replace

from kern.db.base import Db
from kern.db.journals import ClaimedRun, EventRow, JournalDb, RunAbout, StepRow, SubmittedRow
from kern.errors import RunLostError, SessionOwnershipError
from kern.testing._db_rows import raises, run_row, state_commit

HOUR = 3600.0


def step(key: str, data: bytes = b'{"at": 1.5, "text": "\\u0000 \xc3\xa9"}') -> StepRow:
    """A step as it is stored; its JSON is returned byte for byte."""
    return StepRow(key=key, kind="tool", data=data)


async def claimed(db: Db, owner: str, seconds: float = HOUR, run_id: str = "r") -> ClaimedRun:
    """Claim a run that has no owner."""
    assert isinstance(db, JournalDb)
    found = await db.claim_run(run_id, owner, seconds)
    assert found is not None, f"{owner} does not get {run_id}"
    return found


def submitted(run_id: str, runner_id: str = "a") -> SubmittedRow:
    """A submitted run that any process may begin; its request is returned byte for byte."""
    request = b'{"input": "\xc3\xa9", "n": 1.50}'
    about = RunAbout(session_id="s", user_id="ann", runner_id=runner_id, is_team=True)
    return SubmittedRow(run_id=run_id, about=about, request=request)


class JournalConformance:
    """Tests of a `JournalDb`. They take the fixture `db`, as `DbConformance` does."""

    async def test_a_run_is_claimed_by_one_owner(self, db: Db) -> None:
        first = await claimed(db, "a")
        assert (first.claim.attempt, first.claim.before, list(first.steps)) == (1, None, [])
        assert isinstance(db, JournalDb)
        assert await db.claim_run("r", "b", HOUR) is None
        other = await claimed(db, "b", run_id="r2")
        assert other.claim.run_id == "r2"

    async def test_steps_come_back_as_they_were_appended_in_their_order(self, db: Db) -> None:
        assert isinstance(db, JournalDb)
        first = await claimed(db, "a")
        steps = [step(key) for key in ("z", "a", "m")]
        assert await db.append_steps(first.claim, HOUR, steps[:2])
        assert await db.append_steps(first.claim, HOUR, steps[2:])
        await db.release_claim(first.claim)
        again = await claimed(db, "b")
        assert list(again.steps) == steps
        assert (again.claim.attempt, again.claim.before) == (2, "a")

    async def test_a_claim_that_has_run_out_is_anybodys(self, db: Db) -> None:
        assert isinstance(db, JournalDb)
        first = await claimed(db, "a", 0.0)
        second = await claimed(db, "b")
        assert second.claim.attempt == 2
        assert not await db.append_steps(first.claim, HOUR, [step("late")])
        await db.release_claim(first.claim)
        assert await db.claim_run("r", "c", HOUR) is None, "who has lost a claim cannot give it away"
        await db.release_claim(second.claim)
        assert list((await claimed(db, "c")).steps) == []

    async def test_appending_renews_a_claim_that_nobody_else_has_taken(self, db: Db) -> None:
        assert isinstance(db, JournalDb)
        first = await claimed(db, "a", 0.0)
        assert await db.append_steps(first.claim, HOUR, [])
        assert await db.claim_run("r", "b", HOUR) is None

    async def test_of_many_who_want_a_run_one_gets_it(self, db: Db) -> None:
        assert isinstance(db, JournalDb)
        found = await asyncio.gather(*(db.claim_run("r", f"owner {n}", HOUR) for n in range(10)))
        assert len([one for one in found if one is not None]) == 1

    async def test_the_commit_of_the_end_takes_steps_and_claim_along(self, db: Db) -> None:
        assert isinstance(db, JournalDb)
        first, other = await claimed(db, "a"), await claimed(db, "a", run_id="r2")
        for claim in (first.claim, other.claim):
            assert await db.append_steps(claim, HOUR, [step("one")])
        commit = replace(state_commit(b'{"n":1}', runs=[run_row("r")]), claim=first.claim)
        await db.commit(commit)
        again = await claimed(db, "b")
        assert (again.claim.attempt, list(again.steps)) == (1, [])
        await db.release_claim(other.claim)
        assert len((await claimed(db, "b", run_id="r2")).steps) == 1

    async def test_a_commit_of_the_end_that_is_repeated_is_no_lost_run(self, db: Db) -> None:
        first = await claimed(db, "a")
        commit = replace(state_commit(b'{"n":1}', runs=[run_row("r")]), claim=first.claim)
        assert not (await db.commit(commit)).repeated
        assert (await db.commit(commit)).repeated

    async def test_who_has_lost_a_run_cannot_commit_its_end(self, db: Db) -> None:
        first = await claimed(db, "a", 0.0)
        await claimed(db, "b")
        commit = replace(state_commit(b'{"n":1}', runs=[run_row("r")]), claim=first.claim)
        with raises(RunLostError):
            await db.commit(commit)
        assert await db.load_run("r") is None
        assert await db.load_session("s") is None

    async def test_runs_that_nobody_has_are_listed_if_they_have_steps(self, db: Db) -> None:
        assert isinstance(db, JournalDb)
        for name, seconds, steps in (("held", HOUR, 1), ("dead", 0.0, 1), ("empty", 0.0, 0), ("old", 0.0, 2)):
            claim = (await claimed(db, "a", seconds, name)).claim
            await db.append_steps(claim, seconds, [step(f"{n}") for n in range(steps)])
        assert await db.unfinished_runs() == ["dead", "old"]
        assert await db.unfinished_runs(limit=1) == ["dead"]

    async def test_events_are_kept_with_steps_and_outlive_the_end(self, db: Db) -> None:
        assert isinstance(db, JournalDb)
        first = await claimed(db, "a", 0.0)
        rows = [EventRow(last_seq=seq, data=b'[{"seq": 1.50, "text": "\xc3\xa9"}]') for seq in (2, 9, 12)]
        assert await db.append_steps(first.claim, 0.0, [step("one")], rows[:2])
        assert await db.append_steps(first.claim, 0.0, [], rows[1:]), "what is kept already is kept once"
        assert await db.load_events("r") == rows
        assert await db.load_events("r", after=2, limit=1) == rows[1:2]
        assert await db.load_events("r", after=12) == await db.load_events("x") == []
        second = await claimed(db, "b")
        assert second.last_seq == 12
        assert not await db.append_steps(first.claim, 0.0, [], [EventRow(last_seq=13, data=b"[]")])
        commit = replace(state_commit(b'{"n":1}', runs=[run_row("r")]), claim=second.claim)
        await db.commit(commit)
        assert await db.load_events("r") == rows
        await db.delete_session("s")
        assert await db.load_events("r") == []

    async def test_runs_are_listed_while_they_run_the_newest_first(self, db: Db) -> None:
        assert isinstance(db, JournalDb)
        for name, user, seconds in (
            ("r1", "u", HOUR),
            ("r2", "u", 0.0),
            ("r3", None, HOUR),
            ("empty", "u", HOUR),
        ):
            about = RunAbout(session_id=f"s-{name}", user_id=user, runner_id="a", is_team=name == "r3")
            found = await db.claim_run(name, "p", seconds, about)
            assert found is not None
            if name != "empty":
                assert await db.append_steps(found.claim, seconds, [step("one")])
        rows = await db.running_runs()
        assert [row.run_id for row in rows] == ["r3", "r2", "r1"]
        assert [row.owner for row in rows] == ["p", None, "p"]
        assert [row.about.is_team for row in rows] == [True, False, False]
        assert all(row.begun_at <= row.heartbeat_at + 0.001 and row.attempt == 1 for row in rows)
        assert [row.run_id for row in await db.running_runs(user_id="u")] == ["r2", "r1"]
        assert await db.running_runs(session_id="s-r2") == await db.running_runs(run_id="r2") == rows[1:2]
        assert await db.running_runs(limit=1, before="r3") == rows[1:2]

    async def test_a_submitted_run_is_listed_before_any_process_has_it(self, db: Db) -> None:
        assert isinstance(db, JournalDb)
        about = RunAbout(session_id="s", user_id="u", runner_id="a", is_team=True)
        assert await db.submit_run(replace(submitted("r"), about=about))
        (row,) = await db.running_runs(user_id="u")
        assert (row.run_id, row.owner, row.attempt, row.about) == ("r", None, 0, about)
        assert await db.claim_run("r", "p", HOUR, about) is not None
        (row,) = await db.running_runs(user_id="u")
        assert (row.owner, row.attempt, row.about) == ("p", 1, about)

    async def test_nobody_becomes_the_owner_of_a_begun_or_submitted_run_by_its_id(self, db: Db) -> None:
        assert isinstance(db, JournalDb)
        theirs = RunAbout(session_id="s", user_id="u", runner_id="a", is_team=True)
        other = RunAbout(session_id="s2", user_id="eve", runner_id="b", is_team=False)
        first = await db.claim_run("r", "p", 0.0, theirs)
        assert first is not None
        assert first.about == theirs
        again = await db.claim_run("r", "q", 0.0, other)
        assert again is not None
        assert again.about == other, "nothing was done of it"
        again = await db.claim_run("r", "p", 0.0, theirs)
        assert again is not None
        assert await db.append_steps(again.claim, 0.0, [step("one")])
        for asked in (other, None, theirs):
            found = await db.claim_run("r", "q", 0.0, asked)
            assert found is not None
            assert found.about == theirs
        assert [row.about for row in await db.running_runs()] == [theirs]
        await db.submit_run(replace(submitted("r2"), about=theirs))
        found = await db.claim_run("r2", "q", 0.0, other)
        assert found is not None
        assert found.about == theirs

    async def test_deleting_takes_the_steps_and_claims_of_unfinished_runs_along(self, db: Db) -> None:
        assert isinstance(db, JournalDb)
        for name, session, user in (
            ("r1", "s", "u"),
            ("r2", "s2", "u"),
            ("r3", "s3", None),
            ("r4", "s3", "v"),
        ):
            about = RunAbout(session_id=session, user_id=user, runner_id="a", is_team=False)
            found = await db.claim_run(name, "p", 0.0, about)
            assert found is not None
            await db.append_steps(found.claim, 0.0, [step("one")], [EventRow(last_seq=1, data=b"[]")])
        assert not await db.delete_session("s"), "it has no row yet"
        assert await db.unfinished_runs() == ["r2", "r3", "r4"]
        assert await db.delete_user("u") == 0
        assert await db.unfinished_runs() == ["r3", "r4"]
        for name, steps in (("r1", 0), ("r2", 0), ("r3", 1), ("r4", 1)):
            assert len((await claimed(db, "q", run_id=name)).steps) == steps
            assert len(await db.load_events(name)) == steps
        assert not await db.delete_session("s3")
        assert await db.running_runs() == []

    async def test_a_new_session_belongs_to_the_user_of_the_first_durable_run_in_it(self, db: Db) -> None:
        assert isinstance(db, JournalDb)
        assert await db.submit_run(submitted("submitted"))
        about = RunAbout(session_id="s2", user_id=None, runner_id="a", is_team=False)
        begun = await db.claim_run("begun", "p", HOUR, about)
        assert begun is not None
        await db.append_steps(begun.claim, HOUR, [step("one")])
        empty = await db.claim_run("empty", "p", HOUR, replace(about, session_id="s3", user_id="ann"))
        assert empty is not None
        for session_id, user_id in (("s", "bob"), ("s", None), ("s2", "ann")):
            commit = state_commit(
                session_id=session_id, user_id=user_id, runs=[run_row("r", session_id=session_id)]
            )
            with raises(SessionOwnershipError) as caught:
                await db.commit(commit)
            assert isinstance(caught[0], SessionOwnershipError)
            assert caught[0].session_id == session_id
            assert await db.load_session(session_id) is None
            assert await db.load_run("r") is None
        for session_id, user_id in (("s", "ann"), ("s2", None), ("s3", "bob")):
            await db.commit(state_commit(session_id=session_id, user_id=user_id))
        assert await db.unfinished_runs() == ["submitted"]

    async def test_of_users_who_submit_into_one_new_session_at_once_one_gets_it(self, db: Db) -> None:
        assert isinstance(db, JournalDb)
        for number in range(10):
            runs = []
            for user in ("ann", "bob", None):
                about = RunAbout(session_id=f"s{number}", user_id=user, runner_id="a", is_team=True)
                runs.append(replace(submitted(f"r{number} of {user}"), about=about))
            done = await asyncio.gather(*map(db.submit_run, runs), return_exceptions=True)
            assert sum(each is True for each in done) == 1, done
            assert sum(isinstance(each, SessionOwnershipError) for each in done) == 2, done
            (row,) = await db.running_runs(session_id=f"s{number}")
            assert done[[run.run_id for run in runs].index(row.run_id)] is True

    async def test_a_run_is_not_submitted_into_a_session_of_another_user(self, db: Db) -> None:
        assert isinstance(db, JournalDb)
        await db.commit(state_commit(user_id="ann", runs=[run_row("ended")]))
        assert await db.submit_run(submitted("anns"))
        for user in ("bob", None):
            about = RunAbout(session_id="s", user_id=user, runner_id="a", is_team=True)
            with raises(SessionOwnershipError):
                await db.submit_run(replace(submitted("theirs"), about=about))
            assert not await db.submit_run(replace(submitted("anns"), about=about)), "the id is known"
            assert not await db.submit_run(replace(submitted("ended"), about=about)), "the id is known"
        assert not await db.submit_run(submitted("ended")), "it is stored"
        assert await db.unfinished_runs() == ["anns"]

    async def test_a_submitted_run_is_taken_by_one_process_the_oldest_first(self, db: Db) -> None:
        assert isinstance(db, JournalDb)
        for number in range(3):
            assert await db.submit_run(submitted(f"r{number}"))
        assert not await db.submit_run(submitted("r0")), "the id is known"
        assert await db.load_request("r0") == submitted("r0").request
        assert await db.load_request("unknown") is None
        begun = await claimed(db, "q", run_id="begun")
        assert await db.load_request("begun") is None, "it has no step"
        asked = StepRow(key="base", kind="base", data=b'{"fingerprint": "f"}')
        assert await db.append_steps(begun.claim, HOUR, [step("other"), asked])
        assert await db.load_request("begun") == asked.data
        assert await db.forget_run("begun")
        assert await db.submit_run(submitted("other", runner_id="somebody else"))
        assert await db.unfinished_runs() == ["r0", "r1", "r2", "other"]
        taken = await asyncio.gather(*(db.take_run(f"owner {n}", HOUR, ["a", "b"]) for n in range(5)))
        found = [one for one in taken if one is not None]
        assert sorted(one.claim.run_id for one in found) == ["r0", "r1", "r2"]
        assert all(one.request == submitted("").request for one in found)
        assert all((one.claim.attempt, one.claim.before) == (1, None) for one in found)
        assert await db.unfinished_runs() == ["other"]

    async def test_a_claim_without_steps_keeps_the_run_from_being_submitted_while_it_holds(
        self, db: Db
    ) -> None:
        assert isinstance(db, JournalDb)
        for number, about in enumerate((None, submitted("").about)):
            held = await db.claim_run(f"r{number}", "a", HOUR, about)
            assert held is not None
            assert not await db.submit_run(submitted(f"r{number}")), "it is in progress"
            assert await db.take_run("b", HOUR, ["a"]) is None
            assert await db.claim_run(f"r{number}", "a", 0.0, about) is not None
            assert await db.submit_run(submitted(f"r{number}")), "its process has died"
            taken = await db.take_run("b", HOUR, ["a"])
            assert taken is not None
            assert (taken.claim.attempt, taken.claim.before) == (1, None)
            assert taken.request == submitted("").request
            (row,) = await db.running_runs(run_id=f"r{number}")
            assert row.about == submitted("").about
            assert await db.forget_run(f"r{number}")

    async def test_who_has_taken_a_run_claims_it_and_its_request_stays_until_its_end(self, db: Db) -> None:
        assert isinstance(db, JournalDb)
        assert await db.submit_run(submitted("r"))
        taken = await db.take_run("a", HOUR, ["a"])
        assert taken is not None
        assert await db.claim_run("r", "b", HOUR) is None
        first = await claimed(db, "a")
        assert first.claim == taken.claim
        await db.release_claim(first.claim)  # it has no steps
        again = await db.take_run("b", 0.0, ["a"])
        assert again is not None
        assert (again.claim.attempt, again.claim.before, again.request) == (2, "a", taken.request)
        third = await db.take_run("c", HOUR, ["a"])  # the claim of b is over
        assert third is not None
        assert (third.claim.attempt, third.claim.before) == (3, "b")
        commit = replace(state_commit(b'{"n":1}', user_id="ann", runs=[run_row("r")]), claim=third.claim)
        await db.commit(commit)
        assert await db.take_run("d", HOUR, ["a"]) is None
        assert await db.unfinished_runs() == []

    async def test_a_run_is_forgotten_by_who_has_it_or_by_decree(self, db: Db) -> None:
        assert isinstance(db, JournalDb)
        assert await db.submit_run(submitted("r"))
        taken = await db.take_run("a", HOUR, ["a"])
        assert taken is not None
        assert await db.append_steps(taken.claim, HOUR, [step("one")])
        assert not await db.forget_run("r", "b")
        assert await db.forget_run("r", "a")
        assert not await db.forget_run("r", "a")
        assert not await db.append_steps(taken.claim, HOUR, [step("two")]), "it is nobody's any more"
        assert list((await claimed(db, "b")).steps) == []
        assert await db.forget_run("r")
        assert await db.unfinished_runs() == []

    async def test_a_run_that_was_begun_without_being_submitted_is_not_taken(self, db: Db) -> None:
        assert isinstance(db, JournalDb)
        first = await claimed(db, "a")
        assert await db.append_steps(first.claim, HOUR, [step("one")])
        assert not await db.submit_run(submitted("r"))
        await db.release_claim(first.claim)
        assert await db.take_run("b", HOUR, ["a"]) is None
        assert await db.unfinished_runs() == ["r"]
