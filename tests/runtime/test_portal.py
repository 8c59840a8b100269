"""Sync faces: in scripts, threads, tools, notebooks and forked children; Ctrl-C; the end of a program."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from blockbuster import BlockBuster

from kern.agent import Agent
from kern.db.in_memory import InMemoryDb
from kern.errors import UsageError
from kern.models.base import ModelRequest, ModelResponse
from kern.run import RunContext
from kern.runtime.portal import portal
from kern.runtime.session import live_sessions
from kern.testing import FunctionModel
from tests import processes
from tests.played import agent_with, execution_of, tool_results


async def add(run_context: RunContext) -> None:
    count = run_context.session_state.get("count", 0)
    await asyncio.sleep(0.001)
    run_context.session_state["count"] = count + 1


def test_a_script_runs_again_and_again_on_one_loop() -> None:
    loops: set[Any] = set()

    async def note_loop(run_context: RunContext) -> None:
        loops.add(asyncio.get_running_loop())

    agent = agent_with(add, note_loop)
    for number in range(3):
        assert agent.run("go").session_state == {"count": number + 1}
    assert agent.get_session_state() == {"count": 3}
    assert len(loops) == 1


def test_worker_threads_run_side_by_side() -> None:
    together = threading.Barrier(8)

    def meet() -> None:
        together.wait(20)  # passes only if all eight runs are at work at once

    agent = agent_with(meet, add, session_id="one")
    with ThreadPoolExecutor(8) as pool:
        outputs = list(pool.map(lambda _: agent.run("go"), range(8)))
    assert {output.status.value for output in outputs} == {"COMPLETED"}
    assert agent.get_session_state() == {"count": 8}


def test_a_sync_tool_of_a_running_run_may_run_another_agent() -> None:
    inner = agent_with(add, session_id="inner")

    def nested(run_context: RunContext) -> str:
        inner.run("go")
        return str(inner.run("go").session_state)

    output = agent_with(nested).run("go")
    assert tool_results(output) == {"nested": "{'count': 2}"}


def test_a_chain_of_sync_tools_may_be_deep() -> None:
    def deeper(level: int) -> Agent:
        if level == 0:
            return agent_with(add, session_id="bottom")
        inner = deeper(level - 1)

        def down() -> str:
            return str(inner.run("go").content)

        return agent_with(down)

    assert deeper(12).run("go").content == "done"


def test_async_code_on_the_portal_s_own_loop_is_told_to_await() -> None:
    inner = agent_with(add)

    async def wrong() -> None:
        inner.run("go")

    async def wrong_stream() -> None:
        list(inner.run("go", stream=True))

    async def right() -> str:
        return str((await inner.arun("go")).content)

    output = agent_with(wrong, wrong_stream, right).run("go")
    for name in ("wrong", "wrong_stream"):
        assert execution_of(output, name).tool_call_error
        assert "UsageError" in tool_results(output)[name]
        assert "arun" in tool_results(output)[name]
    assert tool_results(output)["right"] == "done"
    with pytest.raises(UsageError):
        portal.call(_call_again)


async def _call_again() -> Any:
    return portal.call(_call_again)


def test_context_variables_of_the_caller_reach_the_tools() -> None:
    from contextvars import ContextVar

    request_id = ContextVar("request_id", default="none")

    async def look() -> str:
        return request_id.get()

    def look_sync() -> str:
        return request_id.get()

    request_id.set("r-1")
    assert set(tool_results(agent_with(look, look_sync).run("go")).values()) == {"r-1"}


def test_an_error_of_the_run_is_raised_in_the_calling_thread() -> None:
    def fail(_: ModelRequest) -> ModelResponse:
        raise UsageError("no model here")

    with pytest.raises(UsageError, match="no model here") as raised:
        Agent(model=FunctionModel(fail)).run("go")
    assert raised.value.run_output.status.value == "ERROR"


# Streams.


def test_a_sync_stream_has_all_events() -> None:
    kinds = [event.kind for event in agent_with(add).run("go", stream=True, stream_events=True)]
    assert kinds[0] == "RunStarted"
    assert kinds[-1] == "RunCompleted"
    assert "SessionStateChanged" in kinds


@pytest.mark.parametrize("how", ["break", "error", "close"])
def test_a_sync_stream_that_is_left_has_ended_when_control_comes_back(how: str) -> None:
    db = InMemoryDb()

    async def stuck(run_context: RunContext) -> None:
        run_context.session_state["never"] = True
        await asyncio.Event().wait()

    agent = agent_with(stuck, db=db, session_id="one")

    def consume() -> None:
        stream = agent.run("go", stream=True, stream_events=True)
        for event in stream:
            if event.kind == "ToolCallStarted":
                if how == "break":
                    break
                if how == "error":
                    raise KeyError
                stream.close()  # type: ignore[attr-defined]

    if how == "error":
        with pytest.raises(KeyError) as raised:
            consume()
        del raised
    else:
        consume()
    assert [run.status for run in asyncio.run(db.load_runs("one"))] == ["CANCELLED"]
    assert len(live_sessions) == 0


def test_a_sync_stream_that_nobody_iterates_does_nothing() -> None:
    db = InMemoryDb()
    agent_with(add, db=db).run("go", stream=True)
    assert db._sessions == {}


# Programs of their own.


def test_a_program_ends_at_once_without_closing_anything(tmp_path: Any) -> None:
    output = processes.run(
        """
        import sys
        from tests.played import agent_with
        from kern.db.sqlite import SqliteDb

        def note(run_context):
            run_context.session_state["count"] = run_context.session_state.get("count", 0) + 1

        agent = agent_with(note, db=SqliteDb(db_file=sys.argv[1]), session_id="one")
        agent.run("go")
        for event in agent.run("go", stream=True):
            pass
        print(agent.get_session_state())
        """,
        tmp_path / "agents.db",
    )
    assert output == "{'count': 2}\n"


def test_a_program_does_not_wait_for_a_tool_that_never_returns() -> None:
    output = processes.run(
        """
        import threading
        from tests.played import agent_with
        from kern.tools.function import Function

        def stuck():
            threading.Event().wait()

        print(agent_with(Function(stuck, timeout=0.1)).run("go").tools[0].result)
        """
    )
    assert "took longer" in output


def test_a_program_that_ends_in_the_middle_of_a_run_leaves_it_cancelled_and_committed(tmp_path: Any) -> None:
    output = processes.run(
        """
        import asyncio, concurrent.futures, contextlib, sys, threading
        from tests.played import agent_with
        from kern.db.sqlite import SqliteDb

        inside = threading.Event()

        async def stuck(run_context):
            run_context.session_state["never"] = True
            inside.set()
            await asyncio.Event().wait()

        agent = agent_with(stuck, db=SqliteDb(db_file=sys.argv[1]), session_id="one")

        def run():
            with contextlib.suppress(concurrent.futures.CancelledError):
                agent.run("go")

        threading.Thread(target=run, daemon=True).start()
        inside.wait()
        print("out")
        """,
        tmp_path / "agents.db",
    )
    assert output == "out\n"
    rows = processes.run(SHOW, tmp_path / "agents.db")
    assert rows == "['CANCELLED'] {}\n"


SHOW = """
    import asyncio, json, sys
    from kern.db.sqlite import SqliteDb

    async def show(db):
        rows = await db.load_runs("one")
        session = await db.load_session("one")
        print([row.status for row in rows], json.loads(session.state))

    asyncio.run(show(SqliteDb(db_file=sys.argv[1])))
"""


def test_inside_a_running_loop_such_as_a_notebook_s() -> None:
    output = processes.run(
        """
        import asyncio, sys
        from tests.played import agent_with

        sys.modules["ipykernel"] = sys  # which waits for a cell in any case

        async def add(run_context):
            count = run_context.session_state.get("count", 0)
            await asyncio.sleep(0.001)
            run_context.session_state["count"] = count + 1

        async def cell():
            agent = agent_with(add)
            agent.run("go")
            for event in agent.run("go", stream=True):
                pass
            print(agent.get_session_state())
            await agent.arun("go")
            print(await agent.aget_session_state())

        asyncio.run(cell())
        """
    )
    assert output == "{'count': 2}\n{'count': 3}\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_has_a_portal_of_its_own(tmp_path: Any) -> None:
    """Forked while a run of the parent's has the state of the very session that the child then uses."""
    output = processes.run(
        """
        import os, sys, threading, warnings
        from tests.played import agent_with
        from kern.db.sqlite import SqliteDb

        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads: that is the point
        inside, go_on = threading.Event(), threading.Event()

        def add(run_context):
            state = run_context.session_state
            state["count"] = state.get("count", 0) + 1
            if os.getpid() == parent and not go_on.is_set():
                inside.set()
                go_on.wait()

        parent = os.getpid()
        agent = agent_with(add, db=SqliteDb(db_file=sys.argv[1]), session_id="one")
        thread = threading.Thread(target=lambda: agent.run("go"))
        thread.start()
        inside.wait()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                print("child", agent.run("go").session_state, agent.get_session_state(), flush=True)
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        go_on.set()
        thread.join()
        print("parent", agent.run("go").session_state["count"] >= 2)
        """,
        tmp_path / "agents.db",
    )
    assert output == "child {'count': 1} {'count': 1}\nparent True\n"


INTERRUPTED = """
    import asyncio, sys, threading
    from tests.played import agent_with
    from kern.db.sqlite import SqliteDb

    async def work(run_context):
        run_context.session_state["never"] = True
        print("inside", flush=True)
        await asyncio.Event().wait()

    def work_sync(run_context):
        run_context.session_state["never"] = True
        print("inside", flush=True)
        threading.Event().wait()

    way = sys.argv[2]
    tool = work_sync if way == "thread" else work
    agent = agent_with(tool, db=SqliteDb(db_file=sys.argv[1]), session_id="one")
    try:
        if way == "stream":
            for event in agent.run("go", stream=True, stream_events=True):
                pass
        elif way == "print":
            agent.print_response("go")
        elif way == "asyncio":
            asyncio.run(agent.arun("go"))
        else:
            agent.run("go")
    except KeyboardInterrupt:
        print("interrupted", agent.get_last_run_output().status, agent.get_session_state())
    print(agent.get_session_name())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGINT to send")
@pytest.mark.parametrize("way", ["run", "thread", "stream", "print", "asyncio"])
def test_ctrl_c_is_raised_when_the_cancelled_run_is_committed(tmp_path: Any, way: str) -> None:
    program = processes.start(INTERRUPTED, tmp_path / "agents.db", way)
    assert program.stdout is not None
    while "inside" not in (line := program.stdout.readline()):
        assert line, program.communicate()
    program.send_signal(signal.SIGINT)
    output = processes.finish(program)
    assert output.splitlines()[-2:] == ["interrupted CANCELLED {}", "None"]


async def test_a_sync_method_in_async_code_says_once_per_place_that_it_stops_the_loop(
    caplog: pytest.LogCaptureFixture, blockbuster: BlockBuster
) -> None:
    blockbuster.deactivate()  # which says no to it, too
    agent = Agent(model=FunctionModel(lambda request: "Hello."))
    with caplog.at_level("WARNING", logger="kern"):
        for _ in range(3):
            agent.run("Hi")
        agent.get_session_state()
    said = [record.getMessage() for record in caplog.records if "stops the event loop" in record.getMessage()]
    assert len(said) == 2
    assert "await the async method" in said[0]
    assert said[0].startswith(f"{__file__}:")
    assert said[0].split(": ")[0] != said[1].split(": ")[0]


def test_that_warning_is_seen_without_logging(tmp_path: Path) -> None:
    program = tmp_path / "stops.py"
    program.write_text(
        "import asyncio\n"
        "from kern import Agent\n"
        "from kern.testing import ScriptedModel\n"
        "async def main():\n"
        "    Agent(model=ScriptedModel(['a'])).run('x')\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, check=True)
    assert f"{program}:5: a sync method such as run() is called in async code" in done.stderr
