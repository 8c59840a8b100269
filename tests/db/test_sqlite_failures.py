"""A file that cannot be used: the error says why and what to do, and the answer of the run is in it."""

from __future__ import annotations

import os
import sqlite3
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kern.agent import Agent
from kern.db import SqliteDb
from kern.errors import StoreError
from kern.run import RunContext
from kern.runtime.session import live_sessions
from tests import processes
from tests.played import agent_with

PRELUDE = """
    import asyncio, os, resource, signal, sqlite3, sys
    from pathlib import Path
    from tests.played import agent_with
    from kern.db import SqliteDb
    from kern.errors import StoreError

    def work(run_context):
        state = run_context.session_state
        state["count"] = state.get("count", 0) + 1

    def agent_on(path):
        return agent_with(work, db=SqliteDb(path), session_id="one")
"""


def work(run_context: RunContext) -> None:
    state = run_context.session_state
    state["count"] = state.get("count", 0) + 1


def agent_on(path: Path, busy_timeout: float = 30.0) -> Agent:
    return agent_with(work, db=SqliteDb(path, busy_timeout=busy_timeout), session_id="one")


def program(text: str, *arguments: object, seconds: float = 25.0) -> str:
    started = processes.start(textwrap.dedent(PRELUDE) + textwrap.dedent(text), *arguments)
    return processes.finish(started, seconds)


@pytest.fixture
async def path(tmp_path: Path) -> AsyncIterator[Path]:
    path = tmp_path / "agents.db"
    yield path
    await SqliteDb(path).aclose()
    assert len(live_sessions) == 0


@pytest.mark.parametrize("how", ["IMMEDIATE", "EXCLUSIVE"])
async def test_a_file_that_another_program_holds_too_long(path: Path, how: str) -> None:
    agent = agent_on(path, busy_timeout=0.2)
    await agent.arun("go")
    other = sqlite3.connect(path)
    other.execute(f"BEGIN {how}")
    with pytest.raises(StoreError, match=r"is busy.*busy_timeout") as raised:
        await agent.arun("go")
    assert raised.value.run_output is not None
    assert raised.value.run_output.content == "done"
    assert raised.value.run_output.session_state == {"count": 2}  # to be saved by other means
    assert await agent.aget_session_state() == {"count": 1}
    other.rollback()
    other.close()
    assert (await agent.arun("go")).session_state == {"count": 2}


async def test_a_newer_kern_that_changes_the_tables_while_the_file_is_open(path: Path) -> None:
    agent = agent_on(path)
    await agent.arun("go")
    newer = sqlite3.connect(path)
    newer.execute("ALTER TABLE kern_sessions ADD COLUMN more TEXT")
    newer.execute("INSERT INTO kern_sessions_schema (version) VALUES (99)")
    newer.commit()
    with pytest.raises(StoreError, match=r"newer Kern.*update Kern"):
        await agent.arun("go")
    assert newer.execute("SELECT state FROM kern_sessions").fetchall() == [('{"count":1}',)]
    newer.close()


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits on the size of files")
def test_a_disk_that_takes_no_more(tmp_path: Path) -> None:
    told = program(
        """
        path = sys.argv[1]
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        agent = agent_on(path)
        agent.run("go")
        limit = os.path.getsize(path + "-wal") + 3000
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        for _ in range(3):
            try:
                agent.run("go")
            except StoreError as error:
                assert error.run_output.content == "done"
                assert "has space" in str(error) or "free some space" in str(error), error
                print("refused")
        assert agent.get_session_state() == {"count": 1}
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        print(agent.run("go").session_state)
        """,
        tmp_path / "agents.db",
    )
    assert told.split("\n")[:-1] == ["refused"] * 3 + ["{'count': 2}"]


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="needs users")
def test_a_file_that_this_user_may_not_write(tmp_path: Path) -> None:
    program(
        """
        path = Path(sys.argv[1])
        agent_on(path.with_name("warm up")).run("go")
        asyncio.run(agent_on(path).arun("go"))  # whose loop closes the file at its end
        path.chmod(0o444)
        path.parent.chmod(0o555)
        if os.geteuid() == 0:  # who may write everywhere
            for parent in list(path.parents)[:-2]:
                parent.chmod(0o755)
            os.setuid(65534)
        try:
            agent_on(path).run("go")
        except StoreError as error:
            assert "let this user write" in str(error), error
        else:
            raise AssertionError("it was written")
        """,
        tmp_path / "agents.db",
    )


MIGRATION = """
    from kern.db import _sqlite_connection, _sqlite_schema

    path, moment = sys.argv[1], 0
    if len(sys.argv) > 2:  # a later version
        more = ("ALTER TABLE {t} ADD COLUMN more TEXT", "UPDATE {t} SET more = 'filled in'")
        _sqlite_schema.MIGRATIONS += (more,)

    class Mortal(sqlite3.Connection):
        left = 0

        def execute(self, *arguments):
            Mortal.left -= 1
            if Mortal.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().execute(*arguments)

    connect = sqlite3.connect
    _sqlite_connection.sqlite3.connect = lambda *a, **k: connect(*a, **{**k, "factory": Mortal})
    while True:
        moment += 1
        child = os.fork()
        if child == 0:
            Mortal.left = moment
            try:
                asyncio.run(SqliteDb(path).load_session("one"))
            finally:
                os._exit(0 if Mortal.left > 0 else 1)
        _, status = os.waitpid(child, 0)
        raw = connect(path)
        assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        raw.close()
        if os.waitstatus_to_exitcode(status) == 0:
            break  # it was through before it could be killed
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL, status
        if moment % 6 == 1:
            copy = Path(path).with_name(f"copy-{len(sys.argv)}-{moment}.db")
            raw = connect(path)
            raw.execute(f"VACUUM INTO '{copy}'")
            raw.close()
            assert agent_on(copy).run("go").session_state == {"count": len(sys.argv) - 1}
    print(moment - 1)
"""


@pytest.mark.timeout(240)  # of work that takes three seconds on an idle machine
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_process_killed_at_any_statement_of_a_migration_leaves_a_file_that_the_next_one_migrates(
    tmp_path: Path,
) -> None:
    path = tmp_path / "agents.db"
    assert int(program(MIGRATION, path, seconds=100)) > 15
    assert agent_on(path).run("go").session_state == {"count": 1}
    assert int(program(MIGRATION, path, "a later version", seconds=100)) > 5
    raw = sqlite3.connect(path)
    assert raw.execute("SELECT state, more FROM kern_sessions").fetchall() == [('{"count":1}', "filled in")]
    raw.close()
    with pytest.raises(StoreError, match="newer Kern"):
        agent_on(path).run("go")
