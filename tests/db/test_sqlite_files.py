"""The file and what lies beside it: who may read it, how many are open, and what if somebody deletes one."""

# ruff: noqa: ASYNC240  # the tests' own little files may be looked at on the loop

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import sqlite3
import stat
import sys
import textwrap
import threading
import weakref
from pathlib import Path

import pytest

from kern import Agent
from kern.db import SqliteDb, _sqlite_idle
from kern.errors import StoreError
from kern.testing import FunctionModel
from kern.testing.db import counting_commit, run_row, state_commit
from tests import processes

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="modes and open files are POSIX's")


def agent_on(path: Path) -> Agent:
    return Agent(model=FunctionModel(lambda request: "ok"), db=SqliteDb(path), session_id="s")


def found(path: Path) -> int:
    """How many runs another program finds."""
    raw = sqlite3.connect(path)
    try:
        return int(raw.execute("SELECT count(*) FROM kern_sessions_runs").fetchone()[0])
    finally:
        raw.close()


def descriptors(path: Path) -> list[str]:
    targets = []
    for name in os.listdir("/proc/self/fd"):
        try:
            targets.append(os.readlink(f"/proc/self/fd/{name}"))
        except OSError:
            continue
    return [target for target in targets if target.startswith(str(path))]


# Who may read


@POSIX
async def test_files_and_folders_are_made_for_their_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        path = tmp_path / "a" / "b" / "agents.db"
        await agent_on(path).arun("my diary")
        modes = {name.name: stat.S_IMODE(name.stat().st_mode) for name in path.parent.iterdir()}
        assert modes == {"agents.db": 0o600, "agents.db-wal": 0o600, "agents.db-shm": 0o600}
        assert [stat.S_IMODE(folder.stat().st_mode) for folder in list(path.parents)[:2]] == [0o700, 0o700]
    finally:
        os.umask(before)


@POSIX
async def test_a_file_and_a_folder_that_are_there_keep_their_modes(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o755)
    path = folder / "agents.db"
    path.touch()
    path.chmod(0o640)
    await agent_on(path).arun("hello")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert stat.S_IMODE(path.with_name("agents.db-wal").stat().st_mode) == 0o640
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="needs users")
def test_a_folder_that_cannot_be_read_any_more_is_a_store_error_with_the_answer(tmp_path: Path) -> None:
    program = """
        import asyncio, os, sys
        from pathlib import Path
        from kern import Agent
        from kern.db import SqliteDb
        from kern.errors import StoreError
        from kern.testing import FunctionModel

        path = Path(sys.argv[1])
        warm = Agent(model=FunctionModel(lambda r: "ok"), db=SqliteDb(path.parent.with_name("warm up")))
        warm.run("go"), warm.get_chat_history(), warm.delete_session()
        if os.geteuid() == 0:  # who may read everywhere
            for parent in list(path.parents)[1:-2]:
                parent.chmod(0o777)
            os.setuid(65534)
        path.parent.mkdir()

        def play(request):
            path.parent.chmod(0o000)
            return "the answer"

        agent = Agent(model=FunctionModel(play), db=SqliteDb(path), session_id="s")
        try:
            agent.run("go")
        except StoreError as error:
            print(error.run_output.content)
            assert str(path) in str(error), error
        for call in (lambda: agent.run("go"), agent.get_chat_history, lambda: agent.delete_session()):
            try:
                call()
            except StoreError:
                print("told")
        path.parent.chmod(0o700)
        print(agent.get_session_state())
    """
    told = processes.run(textwrap.dedent(program), tmp_path / "mine" / "agents.db")
    assert told == "the answer\ntold\ntold\ntold\n{}\n"


# How many are open


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
async def test_a_file_per_user_leaves_few_threads_and_descriptors_open(tmp_path: Path) -> None:
    threads = threading.active_count()
    dbs = [SqliteDb(tmp_path / f"{n}.db") for n in range(100)]
    for n, db in enumerate(dbs):
        await db.commit(counting_commit())
        if n % 10 == 0:
            await dbs[0].commit(counting_commit())
    assert len(descriptors(tmp_path)) <= 3 * (_sqlite_idle.MOST_IDLE + 1)
    assert threading.active_count() <= threads + _sqlite_idle.MOST_IDLE + 1
    for db in dbs:
        row = await db.load_session("s")
        assert row is not None
        assert row.version == (11 if db is dbs[0] else 1)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
async def test_an_idle_database_closes_and_opens_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_sqlite_idle, "IDLE_SECONDS", 0.05)
    threads = threading.active_count()
    dbs = [SqliteDb(tmp_path / f"{n}.db") for n in range(5)]
    await asyncio.gather(*(db.commit(counting_commit()) for db in dbs))
    while descriptors(tmp_path) or threading.active_count() > threads:
        await asyncio.sleep(0.01)
    assert not list(tmp_path.glob("*-wal"))
    for _ in range(3):
        await asyncio.gather(*(db.commit(counting_commit()) for db in dbs for _ in range(3)))
        await asyncio.sleep(0.06)
    for db in dbs:
        row = await db.load_session("s")
        assert row is not None
        assert row.version == 10


async def test_a_database_in_use_is_not_idle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sqlite_idle, "IDLE_SECONDS", 0.01)
    monkeypatch.setattr(_sqlite_idle, "MOST_IDLE", 1)
    held = threading.Event()
    db = SqliteDb(tmp_path / "a.db")
    slow = asyncio.create_task(db.commit(state_commit(b'{"a":1}', seen=lambda row: held.wait(20))))
    await asyncio.sleep(0.05)
    for n in range(5):
        await SqliteDb(tmp_path / f"{n}.db").commit(counting_commit())
    held.set()
    assert (await slow).row.version == 1
    assert await db.load_session("s") is not None


# Somebody deletes one


@POSIX
@pytest.mark.parametrize("names", [["-wal", "-shm"], ["-wal"], ["-shm"]])
async def test_runs_are_not_lost_when_the_log_is_deleted_under_a_running_process(
    tmp_path: Path, names: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "agents.db"
    agent = agent_on(path)
    await agent.arun("before")
    for name in names:
        os.unlink(f"{path}{name}")
    for _ in range(3):
        await agent.arun("after")
    assert found(path) == 4
    assert len(await agent.aget_chat_history()) == 8
    assert "write-ahead log was deleted" in caplog.text


KILLED = """
    import os, signal, sys
    from kern import Agent
    from kern.db import SqliteDb
    from kern.testing import FunctionModel

    agent = Agent(model=FunctionModel(lambda r: "ok"), db=SqliteDb(sys.argv[1]), session_id="s")
    agent.run("before")
    for name in ("-wal", "-shm"):
        os.unlink(sys.argv[1] + name)
    for _ in range(5):
        agent.run("after")
    print("acknowledged", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@POSIX
def test_they_are_not_lost_either_when_the_process_is_killed_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "agents.db"
    process = processes.start(KILLED, path)
    told, _ = process.communicate(timeout=25)
    assert (told, process.returncode) == ("acknowledged\n", -signal.SIGKILL)
    assert found(path) == 6


@POSIX
async def test_a_commit_that_went_into_a_deleted_log_is_saved_before_it_is_acknowledged(
    tmp_path: Path,
) -> None:
    path = tmp_path / "agents.db"
    db = SqliteDb(path)
    await db.commit(counting_commit())

    def delete(row: object) -> None:
        os.unlink(f"{path}-wal")
        os.unlink(f"{path}-shm")

    await db.commit(state_commit(b'{"count":2}', runs=[run_row("r")], seen=delete))
    assert found(path) == 1


@POSIX
async def test_several_event_loops_notice_a_deleted_log_and_go_on(tmp_path: Path) -> None:
    path = tmp_path / "agents.db"
    db = SqliteDb(path)
    done = threading.Event()

    async def work() -> int:
        count = 0
        while not done.is_set():
            await db.commit(counting_commit())
            count += 1
        return count

    threads = [asyncio.create_task(asyncio.to_thread(asyncio.run, work())) for _ in range(2)]
    own = 0
    for _ in range(3):
        for _ in range(5):
            await db.commit(counting_commit())
            own += 1
        for name in ("-wal", "-shm"):
            Path(f"{path}{name}").unlink(missing_ok=True)
    done.set()
    results = await asyncio.gather(*threads, return_exceptions=True)
    assert all(isinstance(result, int | StoreError) for result in results), results
    for _ in range(400):
        raw = sqlite3.connect(path)
        try:
            assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            break
        except sqlite3.OperationalError:  # a connection of Kern's still lets go of the deleted log
            await asyncio.sleep(0.05)
        finally:
            raw.close()
    else:
        pytest.fail("the file cannot be read any more")


ANOTHER = """
    import sqlite3, sys

    raw = sqlite3.connect(sys.argv[1], isolation_level=None)
    raw.execute("UPDATE kern_sessions SET state = '{\\"count\\":41}', version = 41")
    if len(sys.argv) > 2:
        raw.close()
    print("begun", flush=True)
    sys.stdin.readline()
"""


@POSIX
@pytest.mark.parametrize("closed", [[], ["closed"]])
async def test_what_another_program_has_written_without_the_log_is_not_overwritten(
    tmp_path: Path, closed: list[str]
) -> None:
    path = tmp_path / "agents.db"
    db = SqliteDb(path)
    await db.commit(counting_commit())
    await db.aclose()  # all of it is in the file
    await db.commit(counting_commit())
    for name in ("-wal", "-shm"):
        os.unlink(f"{path}{name}")
    other = processes.start(ANOTHER, path, *closed)
    assert other.stdout is not None
    assert other.stdout.readline() == "begun\n"
    with pytest.raises(StoreError, match=r"was deleted while .*may be lost"):
        await db.commit(counting_commit())
    if hasattr(sqlite3.Connection, "setconfig"):
        done = await db.commit(counting_commit())
        assert (done.row.state, done.row.version) == (b'{"count":42}', 42)
    else:
        with pytest.raises(StoreError, match=r"may be lost.* restart this process"):
            await db.commit(counting_commit())
    await db.aclose()
    other.communicate("end\n", timeout=25)
    assert json.loads(processes.run(LOOK, path))["count"] in (41, 42)


LOOK = """
    import sqlite3, sys

    raw = sqlite3.connect(sys.argv[1])
    assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    print(raw.execute("SELECT state FROM kern_sessions").fetchone()[0])
    raw.close()
"""


def test_an_event_loop_that_has_ended_is_not_kept_by_its_connections(tmp_path: Path) -> None:
    db = SqliteDb(tmp_path / "agents.db")
    loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []

    async def once() -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        await db.load_session("s")

    for _ in range(5):
        asyncio.run(once())
    gc.collect()
    assert [loop() for loop in loops] == [None] * 5
