"""`python -m benchmarks.soak [seconds]`: everything at once, for a while. Memory must stay flat.

Runs, streams that are read and streams that are walked away from, cancellations, deadlines, sync tools,
nested runs, threads and short-lived event loops, on sessions in memory and in an SQLite file, against a model
server on the loopback interface. Prints a line per sample; exits with 1 if memory grew or something is left.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import gc
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from kern.agent import Agent
from kern.db.base import Db
from kern.db.in_memory import InMemoryDb
from kern.db.sqlite import SqliteDb
from kern.errors import SessionDeletedError
from kern.models._clients import close_clients
from kern.models.openai import OpenAIChat
from kern.run import RunContext
from kern.runtime.active_runs import active_runs
from kern.runtime.portal import portal
from kern.runtime.session import live_sessions
from kern.team import Team
from kern.testing import Answer, ModelServer, ReceivedRequest, tool_call

KEPT = 16
"""Sessions that are in use by turns; a session is deleted after some runs, so that the stores do not grow."""
GROWTH = 1.15
"""How much more memory the last quarter of the samples may hold than the second one."""


async def write_async(run_context: RunContext) -> None:
    """Count, with a pause between the read and the write."""
    value = run_context.session_state["count"]
    await asyncio.sleep(0)
    run_context.session_state["count"] = value + 1


def write_sync(run_context: RunContext) -> None:
    """Count, in a thread."""
    run_context.session_state["count"] += 1


async def fail(run_context: RunContext) -> None:
    """Fail, with the state in its hands."""
    run_context.session_state["count"] = -1
    raise ValueError("no")


def play(request: ReceivedRequest) -> Any:
    """The model: leaders delegate to all members, members call all tools, then everybody is done."""
    if request.tool_results:
        return "All is done, and there is nothing more to say."
    if "delegate_task_to_member" in request.tool_names:
        calls = [tool_call("delegate_task_to_member", member_id=m, task="count") for m in ("ann", "bob")]
        return Answer(tool_calls=calls)
    return Answer(tool_calls=[tool_call(name) for name in request.tool_names])


@dataclass
class Soak:
    """One soak: who runs, where, and what has happened."""

    base_url: str
    dbs: list[Db]
    dice: random.Random
    done: Counter[str] = field(default_factory=Counter)
    numbers: Any = field(default_factory=count)
    runs_of: Counter[tuple[int, int]] = field(default_factory=Counter)

    def team(self, db: Db, session_id: str) -> Team:
        """A team on a session; one tool runs a nested agent on the same one."""
        tools = [write_async, write_sync, fail]
        inner = Agent(name="Inner", model=self.model(), tools=[write_sync], db=db, session_id=session_id)

        async def nested(run_context: RunContext) -> None:
            """Run an agent inside of this call's transaction."""
            run_context.session_state["nested"] = True
            await inner.arun("count")

        return Team(
            [Agent(name="Ann", tools=[*tools, nested]), Agent(name="Bob", tools=tools)],
            name="Soak",
            model=self.model(),
            db=db,
            session_id=session_id,
            session_state={"count": 0},
        )

    def model(self) -> OpenAIChat:
        """The model server, over a socket."""
        return OpenAIChat("soak", base_url=self.base_url, api_key="any")

    async def work(self, until: float) -> None:
        """One worker: one thing after the other, until the time is up."""
        ways = [self.plain, self.streamed, self.left, self.cancelled, self.timed_out]
        ways += [self.in_thread, self.in_loop]
        while time.monotonic() < until:
            where, number = self.dice.randrange(len(self.dbs)), self.dice.randrange(KEPT)
            db, session_id = self.dbs[where], f"session-{number}"
            way = self.dice.choice(ways)
            try:
                await way(self.team(db, session_id))
            except SessionDeletedError:  # another worker has deleted it meanwhile, and this run learns it
                self.done["told of a deletion"] += 1
            self.done[way.__name__] += 1
            self.runs_of[where, number] += 1
            if self.runs_of[where, number] % 10 == 0:
                await self.delete(db, session_id)

    async def delete(self, db: Db, session_id: str) -> None:
        """Delete a session, in use or not: straight in the database, as an operator would."""
        await db.delete_session(session_id)
        self.done["deleted"] += 1

    async def plain(self, team: Team) -> None:
        """A run that is awaited."""
        await team.arun("count")

    async def streamed(self, team: Team) -> None:
        """A stream that is read to its end."""
        async for _ in team.arun("count", stream=True, stream_events=True):
            pass

    async def left(self, team: Team) -> None:
        """A stream that is walked away from."""
        events = self.dice.randrange(1, 40)
        async for _ in team.arun("count", stream=True, stream_events=True):
            events -= 1
            if not events:
                break

    async def cancelled(self, team: Team) -> None:
        """A run whose task is cancelled."""
        task = asyncio.create_task(team.arun("count"))
        await asyncio.sleep(self.dice.random() * 0.03)
        task.cancel()
        await asyncio.wait([task])

    async def timed_out(self, team: Team) -> None:
        """A run with a deadline round it."""
        try:
            async with asyncio.timeout(self.dice.random() * 0.05):
                await team.arun("count")
        except TimeoutError:
            self.done["deadlines passed"] += 1

    async def in_thread(self, team: Team) -> None:
        """A sync run, through the portal."""
        await asyncio.to_thread(team.run, "count")

    async def in_loop(self, team: Team) -> None:
        """A run on an event loop of its own, which ends with it."""
        await asyncio.to_thread(lambda: asyncio.run(_await(team.arun, "count")))


async def _await(function: Callable[..., Awaitable[Any]], text: str) -> Any:
    return await function(text)


def resident() -> float:
    """The process's memory, in MB; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6
    except OSError:
        return 0.0


class _Malloc(ctypes.Structure):
    _names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in _names.split()]


def allocated() -> float:
    """What the C library has handed out and not got back, in MB; 0 where it does not say.

    Python's small objects lie elsewhere: this is SQLite's, the parsers' and the threads'. Resident memory
    beyond it is room between what is in use; it grows for a while, and is used again.
    """
    try:
        mallinfo = ctypes.CDLL(None).mallinfo2
    except (AttributeError, OSError):
        return 0.0
    mallinfo.restype = _Malloc
    told = mallinfo()
    return float(told.uordblks + told.hblkhd) / 1e6


def open_files() -> int:
    """The process's file descriptors, sockets included; 0 where the system does not say."""
    try:
        return len(list(Path("/proc/self/fd").iterdir()))
    except OSError:
        return 0


@dataclass
class Samples:
    """What was in use, over time."""

    objects: list[int] = field(default_factory=list)
    allocated: list[float] = field(default_factory=list)
    resident: list[float] = field(default_factory=list)
    files: list[int] = field(default_factory=list)

    def take(self, soak: Soak, elapsed: float) -> None:
        """Measure after a collection, and print."""
        gc.collect()
        self.objects.append(sys.getallocatedblocks())
        self.allocated.append(allocated())
        self.resident.append(resident())
        self.files.append(open_files())
        print(
            f"{elapsed:6.0f} s {sum(soak.done.values()):7d} done {self.objects[-1]:8d} blocks "
            f"{self.allocated[-1]:6.1f} MB allocated {self.resident[-1]:6.1f} MB resident "
            f"{threading.active_count():3d} threads {self.files[-1]:3d} files {len(live_sessions):3d} live",
            flush=True,
        )


def grown(figures: list[float] | list[int]) -> float:
    """The last quarter's mean over the second quarter's; the first one warms up."""
    quarter = max(1, len(figures) // 4)
    second, last = figures[quarter : 2 * quarter], figures[-quarter:]
    return (sum(last) / len(last)) / (sum(second) / len(second)) if any(second) else 1.0


def fill_string_cache() -> None:
    """pydantic-core keeps the last 16,384 short strings that it has parsed: no growth to be told of."""
    for number in range(50_000):
        from_json(f'"{number:032x}"')


async def soak_for(seconds: float, workers: int, seed: int) -> int:
    """Soak; the exit status."""
    samples = Samples()
    fill_string_cache()
    files = open_files()
    with tempfile.TemporaryDirectory() as folder, ModelServer(play) as server:
        dbs: list[Db] = [InMemoryDb(), await asyncio.to_thread(SqliteDb, db_file=f"{folder}/soak.db")]
        soak = Soak(server.base_url, dbs, random.Random(seed))
        began = time.monotonic()
        tasks = [asyncio.create_task(soak.work(began + seconds)) for _ in range(workers)]
        while any(not task.done() for task in tasks):
            await asyncio.wait(tasks, timeout=max(1.0, seconds / 24), return_when=asyncio.FIRST_EXCEPTION)
            server.requests.clear()
            samples.take(soak, time.monotonic() - began)
            for task in tasks:
                if task.done():
                    task.result()
        left = await settle(server)
        await close_all(dbs)
    left += await files_beyond(files)
    print(", ".join(f"{name}: {number}" for name, number in sorted(soak.done.items())))
    growth = {
        "blocks": grown(samples.objects),
        "allocated": grown(samples.allocated),
        "resident": grown(samples.resident),
    }
    told = ", ".join(f"{name} x{times:.3f}" for name, times in growth.items())
    print(f"last quarter to second: {told} (at most x{GROWTH})")
    print("left behind: " + (", ".join(left) or "nothing"))
    return int(max(growth.values()) > GROWTH or bool(left))


async def settle(server: ModelServer) -> list[str]:
    """What is left once everything has had time to end."""
    left: list[str] = []
    for _ in range(500):
        left = [f"live session {session.session_id}" for session in live_sessions._sessions.values()]
        left += [f"run {run.request.run_id}" for run in active_runs]
        left += [f"task {task.get_name()}" for task in asyncio.all_tasks() - {asyncio.current_task()}]
        left += ["an open request"] * server.open_requests
        if not left:
            break
        await asyncio.sleep(0.01)
    return left


async def close_all(dbs: list[Db]) -> None:
    """Close what loops keep for as long as they live; nobody has to, but what is open then is a leak."""
    await close_clients()
    for db in dbs:
        await db.aclose()
    await asyncio.to_thread(portal.close)


async def files_beyond(number: int) -> list[str]:
    """File descriptors beyond those that were open before."""
    for _ in range(500):  # the system takes its time with sockets, and closed loops with their last thread
        if open_files() <= number:
            return []
        await asyncio.sleep(0.01)
    return [f"{open_files() - number} open files"]


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser("python -m benchmarks.soak", description=__doc__)
    parser.add_argument("seconds", nargs="?", type=float, default=60.0)
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    return asyncio.run(soak_for(chosen.seconds, chosen.workers, chosen.seed))


if __name__ == "__main__":
    sys.exit(main())
