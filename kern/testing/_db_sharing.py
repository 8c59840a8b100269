"""The part of the conformance suite about several processes, and about repeated commits."""

# the name of a test says what it is for

from __future__ import annotations

import asyncio
import json
import os
import pickle
import sys
import threading
from collections.abc import Sequence
from typing import Any

from kern.agent import Agent
from kern.db.base import Commit, Committed, Db, SessionRow, StateWrite
from kern.models.base import ModelRequest
from kern.run import RunContext
from kern.testing._db_rows import change_row, run_row, state_commit
from kern.testing.answers import tool_call
from kern.testing.models import FunctionModel

_LARGE = 1_000_000
_SECONDS = 60.0
"""How long the suite waits for what has to come: a process that starts on a busy machine takes long."""

_PROGRAM = """
import asyncio, pickle, sys
from kern.testing._db_sharing import count_up

async def main():
    db = pickle.load(sys.stdin.buffer)
    print("ready", flush=True)
    sys.stdin.buffer.readline()
    await count_up(db, sys.argv[1], int(sys.argv[2]))

asyncio.run(main())
"""


class SharingConformance:
    """Tests with several processes, and of event loops that must not be blocked."""

    async def test_commits_of_two_processes_all_count_and_are_logged_once_each(self, db: Db) -> None:
        if not db.shared:
            return
        await db.commit(state_commit(b'{"count":0}'))
        workers = [await _start(db, name, 15) for name in ("one", "two")]
        for worker in workers:
            assert worker.stdout is not None
            assert await asyncio.wait_for(worker.stdout.readline(), _SECONDS) == b"ready\n"
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write(b"go\n")
        for worker in workers:
            _, errors = await asyncio.wait_for(worker.communicate(), _SECONDS)
            assert worker.returncode == 0, errors.decode()
        row = await db.load_session("s")
        assert row is not None
        assert (json.loads(row.state), row.revision) == ({"count": 30}, 31)
        changes = await db.load_changes("s")
        assert [change.revision for change in changes] == list(range(2, 32))
        assert len(await db.load_runs("s")) == 30

    async def test_a_process_that_is_killed_in_the_middle_of_commits_leaves_none_by_half(
        self, db: Db
    ) -> None:
        if not db.shared:
            return
        await db.commit(state_commit(b'{"count":0}'))
        for name in ("one", "two", "three"):
            worker = await _start(db, name, 10_000)
            assert worker.stdin is not None
            worker.stdin.write(b"go\n")
            while not await db.load_runs("s", limit=1, runner_id=name):  # no event tells
                assert worker.returncode is None
                await asyncio.sleep(0.001)
            worker.kill()
            await worker.communicate()
        done = await db.commit(_counting("after", 0))  # which waits for nobody
        count = json.loads(done.row.state)["count"]
        assert count == done.row.revision - 1
        assert len(await db.load_runs("s")) == len(await db.load_changes("s")) == count

    async def test_a_large_state_is_resolved_without_blocking_the_event_loop(self, db: Db) -> None:
        if not db.shared:  # there is nobody to merge with
            return
        first = (await db.commit(state_commit(b'{"a":"' + b"x" * _LARGE + b'"}'))).row
        await db.commit(state_commit(b'{"b":"' + b"x" * _LARGE + b'"}', known=first))
        reached, go = threading.Event(), threading.Event()
        waited: list[bool] = []

        def merge(row: SessionRow | None) -> None:
            if row != first:  # what another has written meanwhile
                reached.set()
                waited.append(go.wait(_SECONDS))

        commit = asyncio.create_task(db.commit(state_commit(b"{}", known=first, seen=merge)))
        while not reached.is_set():  # noqa: ASYNC110  # set in a thread
            await asyncio.sleep(0.001)
        go.set()
        assert (await commit).row.version == 3
        assert waited == [True]

    async def test_what_a_run_changes_counts_once_if_its_commit_comes_twice(self, db: Db) -> None:
        commit = db.commit

        async def twice(wanted: Commit) -> Committed:
            await commit(wanted)  # whose answer was lost
            return await commit(wanted)

        setattr(db, "commit", twice)  # noqa: B010  # a method
        gate, slow = asyncio.Event(), asyncio.Event()

        async def note(run_context: RunContext, wait: bool) -> str:
            """Take a note."""
            run_context.session_state["n"] += 1
            run_context.session_state["log"].append("slow" if wait else "quick")
            return "noted"

        async def linger() -> str:
            """Wait."""
            slow.set()
            await gate.wait()
            return "waited"

        def play(request: ModelRequest) -> Any:
            waits = any(message.content == "slow" for message in request.messages)
            answers = sum(message.role == "tool" for message in request.messages)
            if not answers:
                return tool_call("note", wait=waits)
            return tool_call("linger") if waits and answers == 1 else "done"

        agent = Agent(
            model=FunctionModel(play), tools=[note, linger], db=db, session_state={"n": 0, "log": []}
        )
        running = asyncio.create_task(agent.arun("slow", session_id="s"))
        await slow.wait()
        await agent.arun("quick", session_id="s")
        gate.set()
        output = await running
        assert output.session_state == {"n": 2, "log": ["slow", "quick"]}
        assert output.state_conflicts == []
        await agent.arun("quick", session_id="s")
        row = await db.load_session("s")
        assert row is not None
        assert json.loads(row.state) == {"n": 3, "log": ["slow", "quick", "quick"]}
        assert len(await db.load_changes("s")) == row.revision == 3
        assert len(await db.load_runs("s")) == 3


async def count_up(db: Db, name: str, times: int) -> None:
    """Count in the state, with one run and one line of the log each time."""
    for number in range(times):
        await db.commit(_counting(name, number))


def _counting(name: str, number: int) -> Commit:
    def resolve(row: SessionRow | None) -> StateWrite:
        count = 0 if row is None else json.loads(row.state)["count"]
        revision = 1 + (0 if row is None else row.revision)
        return StateWrite(b'{"count":%d}' % (count + 1), revision, changes=[change_row(revision)])

    runs: Sequence[Any] = [run_row(f"{name} {number}", runner_id=name)]
    return Commit(session_id="s", user_id=None, resolve=resolve, runs=runs, now=1.0, known=None)


async def _start(db: Db, name: str, times: int) -> asyncio.subprocess.Process:
    """Start a process that counts in the same database when it reads a line."""
    worker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _PROGRAM, name, str(times)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert worker.stdin is not None
    worker.stdin.write(pickle.dumps(db))
    return worker
