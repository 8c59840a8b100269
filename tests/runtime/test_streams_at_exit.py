"""A sync stream that is left unfinished lets its process end soon and quietly, the run committed."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

BEGINNING = """
import asyncio, atexit, os, sys, threading, time
from kern import Agent, Team
from kern.db.sqlite import SqliteDb
from kern.testing import FunctionModel, ScriptedModel, tool_call

def talker():
    return Agent(model=FunctionModel(lambda request: "one two three four"))

async def wait_for_ever():
    await asyncio.Event().wait()

def sleep_for_long():
    time.sleep(100)

def started(tool):
    agent = Agent(
        model=ScriptedModel([tool_call(tool.__name__)]),
        tools=[tool],
        db=SqliteDb(sys.argv[1]),
        session_id="s",
    )
    for event in (events := agent.run("x", stream=True, stream_events=True)):
        if event.event == "ToolCallStarted":
            return events
"""

PROGRAMS = {
    "left with break at module level": """
events = talker().run("x", stream=True)
for event in events:
    break
""",
    "several in a list": """
held = [talker().run("x", stream=True) for _ in range(3)]
for stream in held:
    next(stream)
""",
    "begun in a thread that has ended": """
def work():
    global events
    events = talker().run("x", stream=True)
    next(events)

thread = threading.Thread(target=work)
thread.start()
thread.join()
""",
    "held by a cycle": """
class Owner: pass
owner = Owner()
owner.self, owner.events = owner, talker().run("x", stream=True)
next(owner.events)
del owner
""",
    "left with sys.exit": """
for event in talker().run("x", stream=True):
    sys.exit(0)
""",
    "kept by an error's traceback": """
try:
    events = talker().run("x", stream=True)
    for event in events:
        1 / 0
except ZeroDivisionError as error:
    kept = error
""",
    "let go of in an atexit handler": """
events = talker().run("x", stream=True)
next(events)
atexit.register(lambda: globals().pop("events"))
""",
    "a team's": """
team = Team([Agent(name="a", model=ScriptedModel(["m"]))],
            model=ScriptedModel([tool_call("delegate_task_to_member", member_id="a", task="t"), "x"]))
events = team.run("x", stream=True, stream_events=True)
next(events)
""",
    "while an async tool waits": "events = started(wait_for_ever)",
    "while a sync tool sleeps": "events = started(sleep_for_long)",
}


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BEGINNING + program, *arguments],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=25,
        check=False,
    )


@pytest.mark.parametrize("how", PROGRAMS)
def test_a_process_ends_by_itself_and_quietly_when_a_sync_stream_is_left(how: str, tmp_path: Path) -> None:
    path = tmp_path / "agents.db"
    ended = run(PROGRAMS[how], str(path))
    assert (ended.returncode, ended.stderr) == (0, "")
    if "tool" in how:
        with closing(sqlite3.connect(path)) as connection, connection:
            assert connection.execute("SELECT status FROM kern_sessions_runs").fetchall() == [("CANCELLED",)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_child_process_lets_go_of_its_parents_stream_and_the_parent_reads_on() -> None:
    ended = run(
        """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # threads, as every sync run has them
events = talker().run("x", stream=True)
first = next(events).content
if os.fork() == 0:
    assert talker().run("x").content
    del events
    sys.exit(0)
assert os.wait()[1] == 0
assert first + "".join(event.content for event in events) == "one two three four"
"""
    )
    assert (ended.returncode, ended.stderr) == (0, "")
