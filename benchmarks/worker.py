"""One contender at one job, in a process of its own: told on its input to measure, it answers on its output.

A process for each keeps imports, memory and event loops apart; the one that gives the orders takes turns
between them, so that a noisy neighbour is everyone's.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import json
import os
import resource
import sys
import time
import tracemalloc
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.contenders import Job, Setup, Unsupported, job_of


async def sequential(job: Job, count: int, start: int) -> dict[str, float]:
    """One after the other: CPU and wall per unit."""
    firsts = []
    cpu, wall = time.process_time(), time.perf_counter()
    for number in range(count):
        first = await job.run(start + number)
        if isinstance(first, float):
            firsts.append(first)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {"cpu": cpu / count, "wall": wall / count, **({"first": median(firsts)} if firsts else {})}


async def concurrent(job: Job, count: int, start: int) -> dict[str, float]:
    """All at once: CPU per unit, and wall for all of them."""
    cpu, wall = time.process_time(), time.perf_counter()
    await asyncio.gather(*(job.run(start + number) for number in range(count)))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {"cpu": cpu / count, "wall": wall}


async def series(job: Job, count: int, start: int) -> dict[str, float]:
    """One after the other, each on top of those before: is the last as cheap as the tenth?"""
    cpu, walls, written = [], [], []
    for number in range(count):
        before = time.process_time(), time.perf_counter(), _written()
        await job.run(start + number)
        cpu.append(time.process_time() - before[0])
        walls.append(time.perf_counter() - before[1])
        written.append(_written() - before[2])
    width = max(5, count // 20)
    early, late = slice(5, 5 + width), slice(count - width, count)
    return {
        "cpu": median(cpu[late]),
        "wall": median(walls[late]),
        "written": median(written[late]),
        "cpu_growth": median(cpu[late]) / median(cpu[early]),
        "wall_growth": median(walls[late]) / median(walls[early]),
        "written_growth": median(written[late]) / (median(written[early]) or 1),
    }


async def construct(job: Job, count: int, start: int) -> dict[str, float]:
    """Objects that stay: CPU and bytes of each. Measured apart, since counting bytes costs time."""
    for number in range(10):
        await job.run(number)
    cpu = time.process_time()
    kept = [await job.run(number) for number in range(count)]
    cpu = time.process_time() - cpu
    del kept
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    kept = [await job.run(number) for number in range(count)]
    size = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    del kept
    return {"cpu": cpu / count, "bytes": size / count}


SHAPES = {"sequential": sequential, "concurrent": concurrent, "series": series, "construct": construct}


def _written() -> float:
    """Bytes that this process has handed to files, as Linux counts them."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/io").read_text().splitlines():
            if line.startswith("wchar:"):
                return float(line.split()[1])
    return 0.0


def peak() -> float:
    """The most memory that this process has had, in bytes."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return float(line.split()[1]) * 1024
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * float(scale)


async def work(order: dict[str, Any]) -> None:
    """Make the job, then measure once for every line of input that says how many units."""
    job = job_of(order["contender"], order["job"], Setup(**order["setup"]))
    shape = SHAPES[order["shape"]]
    loop = asyncio.get_running_loop()
    done = 0
    _say({"ready": True})
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        count = int(line)
        gc.collect()
        result = await shape(job, count, done)
        result["token_cpu"] = result["cpu"] / order["setup"]["count"]
        done += count
        if job.final is not None:
            result["final"] = await job.final()
            result["lost"] = done - result["final"]
        _say({**result, "peak": peak()})
    if job.close is not None:
        await job.close()


def _say(message: dict[str, Any]) -> None:
    print(json.dumps(message), file=_answers, flush=True)


def main() -> None:
    """Take the order from the command line."""
    order = json.loads(sys.argv[1])
    try:
        if order["fast"]:
            importlib.import_module("aiohttp")
        elif order["contender"] == "kern_runtime":
            sys.modules["aiohttp"] = None  # type: ignore[assignment]  # as if it were not installed
        asyncio.run(work(order))
    except (Unsupported, ImportError) as error:
        _say({"unsupported": str(error)})


if __name__ == "__main__":
    # What a framework prints must not be taken for an answer.
    _answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    main()
