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
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median
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


async def series(job: Job, young: Job, count: int) -> dict[str, float]:
    """One after the other, each on top of those before: is the last as cheap as the tenth?

    The tenth is that of a second, young series, and the two take turns: what the machine does meanwhile
    happens to both.
    """
    width = max(5, count // 20)
    for number in range(count - width):
        await job.run(number)
    for number in range(5):
        await young.run(number)
    late: list[tuple[float, ...]] = []
    early: list[tuple[float, ...]] = []
    for number in range(width):
        late.append(await _unit(job, count - width + number))
        early.append(await _unit(young, 5 + number))
    cpu, wall, _ = (median(values) for values in zip(*late, strict=True))
    first_cpu, first_wall, _ = (median(values) for values in zip(*early, strict=True))
    # Files are written in pages, of which a run now and then needs one more: no median.
    written, first_written = (fmean(unit[2] for unit in units) for units in (late, early))
    return {
        "cpu": cpu,
        "wall": wall,
        "written": written,
        "cpu_growth": cpu / first_cpu,
        "wall_growth": wall / first_wall,
        "written_growth": written / (first_written or 1),
    }


async def _unit(job: Job, number: int) -> tuple[float, ...]:
    cpu, wall, written = time.process_time(), time.perf_counter(), _written()
    await job.run(number)
    return time.process_time() - cpu, time.perf_counter() - wall, _written() - written


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


SHAPES = {"sequential": sequential, "concurrent": concurrent, "construct": construct}


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
    setup = Setup(**order["setup"])
    job = job_of(order["contender"], order["job"], setup)
    loop = asyncio.get_running_loop()
    done = 0
    _say({"ready": True})
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        count = int(line)
        gc.collect()
        if order["shape"] == "series":
            folder = Path(setup.folder, f"young-{done}")
            await asyncio.to_thread(folder.mkdir)
            young = job_of(order["contender"], order["job"], replace(setup, folder=str(folder)))
            result = await series(job, young, count)
            if young.close is not None:
                await young.close()
        else:
            result = await SHAPES[order["shape"]](job, count, done)
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
