"""One file, many at once: processes, event loops, tasks that are cancelled, loops that stop, forks."""

# ruff: noqa: ASYNC240  # the tests' own little files may be looked at on the loop

from __future__ import annotations

import asyncio
import gc
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kern.db import SqliteDb
from kern.db.base import SessionRow
from kern.errors import StoreError
from kern.testing.db import counting_commit, run_row, state_commit


@pytest.fixture
async def path(tmp_path: Path) -> AsyncIterator[Path]:
    path = tmp_path / "agents.db"
    yield path
    await SqliteDb(path).aclose()


@contextmanager
def another_writer(path: Path) -> Iterator[sqlite3.Connection]:
    """Somebody outside of Kern who is writing to the file."""
    other = sqlite3.connect(path, isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        yield other
        if other.in_transaction:
            other.execute("ROLLBACK")
    finally:
        other.close()


class Halt:
    """A resolver's callback that stops inside the transaction until it is let go."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.go = threading.Event()

    def __call__(self, row: SessionRow | None) -> None:
        self.reached.set()
        assert self.go.wait(20)

    async def wait(self) -> None:
        while not self.reached.is_set():
            await asyncio.sleep(0.001)


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    """Run a Python program that treats warnings as errors."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PRELUDE + script, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str], code: int = 0) -> str:
    try:
        out, err = process.communicate(timeout=20)
    finally:
        process.kill()
    assert err == ""
    assert process.returncode == code
    return out


def run(script: str, *arguments: object, code: int = 0) -> str:
    return finish(start(script, *arguments), code)


PRELUDE = """
import asyncio, gc, itertools, os, signal, sys, threading
from kern.db import SqliteDb
from kern.testing.db import counting_commit, state_commit
path = sys.argv[1]
"""


def count(path: Path) -> int:
    async def load() -> int:
        row = await SqliteDb(path).load_session("s")
        assert row is not None
        assert row.state == b'{"count":%d}' % row.version
        return row.version

    return asyncio.run(load())


# Processes


def test_commits_of_processes_that_make_the_file_together_all_count(tmp_path: Path) -> None:
    path = tmp_path / "new" / "agents.db"
    script = """
async def main():
    db = SqliteDb(path)
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(25):
        await db.commit(counting_commit())
asyncio.run(main())
"""
    processes = [start(script, path) for _ in range(3)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        finish(process)
    assert count(path) == 75


def test_a_commit_that_has_returned_survives_kill_9(tmp_path: Path) -> None:
    script = """
async def main():
    db = SqliteDb(path)
    for _ in range(10):
        await db.commit(counting_commit())
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    run(script, tmp_path / "agents.db", code=-9)
    assert count(tmp_path / "agents.db") == 10


async def test_a_commit_waits_for_another_process(path: Path) -> None:
    db = SqliteDb(path)
    await db.commit(counting_commit())
    with another_writer(path):
        task = asyncio.create_task(db.commit(counting_commit()))
        row = await db.load_session("s")  # a reader does not wait
        assert row is not None
        assert row.version == 1
        assert not task.done()
    assert (await task).row.version == 2


async def test_a_database_that_stays_busy_is_a_store_error(path: Path) -> None:
    db = SqliteDb(path, busy_timeout=0.3)
    await db.commit(counting_commit())
    with another_writer(path):
        with pytest.raises(StoreError, match=r"agents\.db: the database is busy"):
            await db.commit(counting_commit())
        assert await db.load_session("s") is not None
    assert (await db.commit(counting_commit())).row.version == 2


async def test_a_new_file_that_stays_busy_is_a_store_error(path: Path) -> None:
    with another_writer(path) as other:
        other.execute("CREATE TABLE theirs (x)")
        with pytest.raises(StoreError, match="the database is busy"):
            await SqliteDb(path, busy_timeout=0.3).load_session("s")
    assert await SqliteDb(path).load_session("s") is None


async def test_another_process_may_write_between_a_read_and_a_commit(path: Path) -> None:
    db = SqliteDb(path)
    await db.commit(counting_commit())
    await db.load_session("s")
    with another_writer(path) as other:
        other.execute("UPDATE kern_sessions SET state = '{\"count\":41}', version = 41")
        other.execute("COMMIT")
    done = await db.commit(counting_commit())
    assert (done.row.state, done.row.version) == (b'{"count":42}', 42)


# Tasks


async def test_a_cancelled_commit_ends_when_its_transaction_has_ended(path: Path) -> None:
    db, halt = SqliteDb(path), Halt()
    task = asyncio.create_task(db.commit(state_commit(b'{"a":1}', runs=[run_row("r")], seen=halt)))
    await halt.wait()
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0.01)
        assert not task.done()
    behind = asyncio.create_task(db.commit(state_commit(b'{"a":2}')))
    halt.go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await db.load_run("r") is not None
    assert (await behind).row.version == 2


async def test_a_commit_that_is_cancelled_in_the_queue_writes_nothing(path: Path) -> None:
    db, halt = SqliteDb(path), Halt()
    first = asyncio.create_task(db.commit(state_commit(b'{"a":1}', seen=halt)))
    await halt.wait()
    queued = asyncio.create_task(db.commit(state_commit(b'{"a":2}', runs=[run_row("r")])))
    await asyncio.sleep(0.01)
    queued.cancel()
    with pytest.raises(asyncio.CancelledError):
        await queued
    halt.go.set()
    assert (await first).row.version == 1
    assert (await db.commit(state_commit(b'{"a":3}'))).row.version == 2
    assert await db.load_run("r") is None


async def test_a_commit_that_fails_after_its_cancellation_leaves_nothing_behind(path: Path) -> None:
    db, halt = SqliteDb(path), Halt()

    def fail(row: SessionRow | None) -> None:
        halt(row)
        raise LookupError

    task = asyncio.create_task(db.commit(state_commit(seen=fail)))
    await halt.wait()
    task.cancel()
    await asyncio.sleep(0)
    halt.go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await db.load_session("s") is None
    assert (await db.commit(state_commit())).row.version == 1


async def test_a_deadline_ends_a_commit_as_a_timeout(path: Path) -> None:
    db, halt = SqliteDb(path), Halt()

    async def late() -> None:
        async with asyncio.timeout(0.05):
            asyncio.get_running_loop().call_later(0.1, halt.go.set)
            await db.commit(state_commit(seen=halt))

    with pytest.raises(TimeoutError):
        await late()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    assert await db.load_session("s") is not None


async def test_a_close_amid_commits_lets_them_end(path: Path) -> None:
    db = SqliteDb(path)
    commits = [asyncio.create_task(db.commit(counting_commit())) for _ in range(20)]
    for _ in range(10):
        await db.aclose()
        await asyncio.sleep(0)
    await asyncio.gather(*commits)
    row = await db.load_session("s")
    assert row is not None
    assert row.version == 20


async def test_an_open_that_is_cancelled_leaves_nothing_behind(path: Path) -> None:
    for steps in range(4):
        task = asyncio.create_task(SqliteDb(path).load_session("s"))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        await SqliteDb(path).aclose()
    assert await SqliteDb(path).load_session("s") is None


# Event loops


def test_objects_on_many_loops_share_one_writer(tmp_path: Path) -> None:
    path = tmp_path / "agents.db"
    errors: list[BaseException] = []

    async def work() -> None:
        for _ in range(25):
            await SqliteDb(path).commit(counting_commit())

    def thread() -> None:
        try:
            asyncio.run(work())
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=thread) for _ in range(6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert errors == []
    assert count(path) == 150


@pytest.mark.parametrize("close", [False, True])
def test_a_loop_that_stops_in_the_middle_of_a_commit_does_not_keep_the_writer(
    tmp_path: Path, close: bool, caplog: pytest.LogCaptureFixture
) -> None:
    path, halt = tmp_path / "agents.db", Halt()
    db = SqliteDb(path)
    stopped = asyncio.new_event_loop()
    reading = stopped.create_task(db.load_session("s"))
    stopped.run_until_complete(reading)
    first = stopped.create_task(db.commit(state_commit(b'{"count":1}', seen=halt)))
    stopped.run_until_complete(halt.wait())
    second = stopped.create_task(db.commit(counting_commit()))
    stopped.run_until_complete(asyncio.sleep(0.01))
    if close:
        stopped.close()

    async def elsewhere() -> int:
        halt.go.set()
        return (await db.commit(counting_commit())).row.version

    assert asyncio.run(elsewhere()) == 2
    assert not first.done()
    assert not second.done()
    if not close:
        assert stopped.run_until_complete(second).row.version == 3
        assert stopped.run_until_complete(first).row.version == 1
        stopped.run_until_complete(stopped.shutdown_asyncgens())
        stopped.close()
    del reading, first, second
    gc.collect()
    caplog.clear()  # asyncio says that pending tasks were destroyed, which they were


def test_a_connection_is_open_until_its_loop_ends(tmp_path: Path) -> None:
    path = tmp_path / "agents.db"

    async def main() -> None:
        await SqliteDb(path).commit(counting_commit())
        gc.collect()  # nobody has the database any more
        assert Path(f"{path}-wal").exists()
        threads = threading.active_count()
        await SqliteDb(path).commit(counting_commit())
        assert threading.active_count() == threads

    for _ in range(2):
        asyncio.run(main())
        assert [child.name for child in tmp_path.iterdir()] == ["agents.db"]


# Programs


def test_a_program_that_closes_nothing_ends_at_once(tmp_path: Path) -> None:
    script = """
db = SqliteDb(path)
asyncio.run(db.commit(counting_commit()))
"""
    run(script, tmp_path / "agents.db")
    assert count(tmp_path / "agents.db") == 1


def test_a_program_whose_loop_never_ends_ends_at_once(tmp_path: Path) -> None:
    script = """
db = SqliteDb(path)
loop = asyncio.new_event_loop()
threading.Thread(target=loop.run_forever, daemon=True).start()
asyncio.run_coroutine_threadsafe(db.commit(counting_commit()), loop).result()
"""
    run(script, tmp_path / "agents.db")
    assert count(tmp_path / "agents.db") == 1


def test_a_loop_that_is_closed_without_its_shutdown_leaves_no_thread_and_no_warning(tmp_path: Path) -> None:
    script = """
loop = asyncio.new_event_loop()
loop.run_until_complete(SqliteDb(path).commit(counting_commit()))
assert threading.active_count() == 2
loop.close()
asyncio.run(SqliteDb(path).commit(counting_commit()))
for thread in threading.enumerate():
    if thread is not threading.main_thread():
        thread.join(10)
assert threading.active_count() == 1
"""
    run(script, tmp_path / "agents.db")
    assert count(tmp_path / "agents.db") == 2


def test_ctrl_c_in_the_middle_of_commits_leaves_no_half_of_one(tmp_path: Path) -> None:
    script = """
async def main():
    db = SqliteDb(path)
    for n in itertools.count():
        if n == 5:
            asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGINT)
        await db.commit(counting_commit())
try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted")
"""
    assert run(script, tmp_path / "agents.db") == "interrupted\n"
    assert count(tmp_path / "agents.db") >= 5


# Forks

FORK = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 on: a process with threads forks
to_child, to_parent = os.pipe(), os.pipe()
db = SqliteDb(path)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_what_a_forked_child_writes_is_there_after_the_parent_has_closed(tmp_path: Path) -> None:
    script = (
        FORK
        + """
with asyncio.Runner() as runner:
    runner.run(db.commit(counting_commit()))
    pid = os.fork()
    if pid == 0:
        with asyncio.Runner() as child:
            assert child.run(db.commit(counting_commit())).row.version == 2
            os.write(to_parent[1], b".")
            os.read(to_child[0], 1)
            assert child.run(db.commit(counting_commit())).row.version == 3
        os._exit(0)
    os.read(to_parent[0], 1)
    assert runner.run(db.load_session("s")).version == 2
os.write(to_child[1], b".")
assert os.waitpid(pid, 0)[1] == 0
assert asyncio.run(db.commit(counting_commit())).row.version == 4
"""
    )
    run(script, tmp_path / "agents.db")
    assert count(tmp_path / "agents.db") == 4


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forks_amid_commits_of_other_threads_lose_nothing(tmp_path: Path) -> None:
    script = (
        FORK
        + """
def work():
    async def main():
        for _ in range(30):
            await db.commit(counting_commit())
    asyncio.run(main())

threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads:
    thread.start()
children = []
for _ in range(6):
    pid = os.fork()
    if pid == 0:
        asyncio.run(db.commit(counting_commit()))
        os._exit(0)
    children.append(pid)
for pid in children:
    assert os.waitpid(pid, 0)[1] == 0
for thread in threads:
    thread.join()
"""
    )
    run(script, tmp_path / "agents.db")
    assert count(tmp_path / "agents.db") == 66
