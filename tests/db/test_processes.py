"""One database, many processes: started together, killed, interrupted, forked, and ended without a close."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import processes
from tests.db.counted_commits import counted


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    """Run a Python program that treats warnings as errors."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PRELUDE + script, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=processes.environment(),
    )


def finish(process: subprocess.Popen[str], code: int = 0) -> str:
    with process:
        try:
            out, err = process.communicate(timeout=25)
        finally:
            process.kill()
    assert err == ""
    assert process.returncode == code
    return out


def run(script: str, *arguments: object, code: int = 0) -> str:
    return finish(start(script, *arguments), code)


PRELUDE = """
import asyncio, gc, itertools, os, signal, sys, threading
from kern.testing.db import counting_commit, state_commit
from tests.databases import opened
place = sys.argv[1]
"""


# Processes


def test_commits_of_processes_that_make_the_tables_together_all_count(place: str) -> None:
    script = """
async def main():
    db = opened(place)
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(25):
        await db.commit(counting_commit())
asyncio.run(main())
"""
    three = [start(script, place) for _ in range(3)]
    for process in three:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in three:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in three:
        finish(process)
    assert counted(place) == 75


def test_a_commit_that_has_returned_survives_kill_9(place: str) -> None:
    script = """
async def main():
    db = opened(place)
    for _ in range(10):
        await db.commit(counting_commit())
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    run(script, place, code=-9)
    assert counted(place) == 10


# Programs


def test_a_program_that_closes_nothing_ends_at_once(place: str) -> None:
    script = """
db = opened(place)
asyncio.run(db.commit(counting_commit()))
"""
    run(script, place)
    assert counted(place) == 1


def test_a_program_whose_loop_never_ends_ends_at_once(place: str) -> None:
    script = """
db = opened(place)
loop = asyncio.new_event_loop()
threading.Thread(target=loop.run_forever, daemon=True).start()
asyncio.run_coroutine_threadsafe(db.commit(counting_commit()), loop).result()
"""
    run(script, place)
    assert counted(place) == 1


def test_a_loop_that_is_closed_without_its_shutdown_leaves_no_thread_and_no_warning(tmp_path: Path) -> None:
    place = str(tmp_path / "a.db")
    script = """
loop = asyncio.new_event_loop()
loop.run_until_complete(opened(place).commit(counting_commit()))
assert threading.active_count() == 2
loop.close()
asyncio.run(opened(place).commit(counting_commit()))
for thread in threading.enumerate():
    if thread is not threading.main_thread():
        thread.join(10)
assert threading.active_count() == 1
"""
    run(script, place)
    assert counted(place) == 2


def test_ctrl_c_in_the_middle_of_commits_leaves_no_half_of_one(place: str) -> None:
    script = """
async def main():
    db = opened(place)
    for n in itertools.count():
        if n == 5:
            asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGINT)
        await db.commit(counting_commit())
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell ignores it
try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted")
"""
    assert run(script, place) == "interrupted\n"
    assert counted(place) >= 5


# Forks

FORK = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 on: a process with threads forks
to_child, to_parent = os.pipe(), os.pipe()
db = opened(place)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_what_a_forked_child_writes_is_there_after_the_parent_has_closed(place: str) -> None:
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
    run(script, place)
    assert counted(place) == 4


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forks_amid_commits_of_other_threads_lose_nothing(place: str) -> None:
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
    run(script, place)
    assert counted(place) == 66
