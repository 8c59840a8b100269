"""Runs a case: one process for each variant, measured in turns, the median of the rounds taken."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from statistics import median
from typing import Any

from benchmarks.cases import IDEAL, Case, Variant
from benchmarks.contenders import Setup
from benchmarks.environments import RESULTS, ROOT, install, python_of

Measured = dict[str, dict[str, Any]]
"""By variant's label: the metrics, or {"unsupported": why}."""

_IMPORTS = {
    "floor": "import anyio, httpx, pydantic, aiosqlite, tenacity",
    "kern": "from kern import Agent, Team",
    "agno": "from agno.agent import Agent",
    "pydantic_ai": "from pydantic_ai import Agent",
    "openai_agents": "from agents import Agent",
    "langgraph": "from langchain.agents import create_agent",
}

_FIRST_AGENT = """\
import asyncio
from benchmarks.contenders import Setup, job_of
asyncio.run(job_of({contender!r}, "construct", Setup("http://127.0.0.1:9/v1", "any")).run(0))"""
"""What a framework leaves out of its import comes with the first agent."""


@contextmanager
def model_server() -> Iterator[str]:
    """The server in its own process; yields its base URL."""
    command = [sys.executable, "-m", "benchmarks.server"]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        yield f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
        server.kill()


class Worker:
    """The process of one variant."""

    def __init__(self, case: Case, variant: Variant, base_url: str, folder: str) -> None:
        setup = Setup(
            base_url=base_url,
            model=variant.model or case.model,
            protocol=case.protocol,
            count=case.expected,
            folder=folder,
            size=case.size,
        )
        self._count = variant.count or case.count
        order = {
            "contender": variant.contender,
            "job": case.job,
            "setup": asdict(setup),
            "shape": variant.shape or case.shape,
            "fast": variant.fast,
        }
        self._process = subprocess.Popen(
            [python_of(variant.env), "-m", "benchmarks.worker", json.dumps(order)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def answer(self) -> dict[str, Any]:
        """The next line that the worker says; {"unsupported": ...} if it has died."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            said: dict[str, Any] = json.loads(line)
            return said
        assert self._process.stderr is not None
        lines = self._process.stderr.read().strip().splitlines() or ["no reason given"]
        return {"unsupported": f"failed: {lines[-1]}", "trace": "\n".join(lines[-30:])}

    def measure(self, count: int = 0) -> dict[str, Any]:
        """One round."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has died; `answer` finds out why
            self._process.stdin.write(f"{count or self._count}\n")
            self._process.stdin.flush()
        return self.answer()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


def run_case(case: Case, base_url: str, *, with_peers: bool, tell: Any) -> Measured:
    """Measure all variants of a case, in turns."""
    results: dict[str, list[dict[str, Any]]] = {}
    failed: Measured = {}
    with ExitStack() as stack:
        measures: dict[Variant, Any] = {}
        workers: dict[Variant, Worker] = {}
        for variant in case.all_variants(with_peers):
            reason = install(variant.env) if variant.env else ""
            if reason:
                failed[variant.label] = {"unsupported": reason}
            elif case.shape == "import":
                measures[variant] = lambda variant=variant: import_time(case.job, variant)
            else:
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="kern-bench-"))
                worker = Worker(case, variant, base_url, folder)
                stack.callback(worker.close)
                workers[variant] = worker
        for variant, worker in workers.items():
            said = worker.answer()
            if "unsupported" not in said and case.shape in ("sequential", "concurrent"):
                said = worker.measure(min(10, variant.count or case.count))  # warm
            if "unsupported" in said:
                failed[variant.label] = said
            else:
                measures[variant] = worker.measure
        if case.shape == "import":
            for measure in measures.values():
                measure()  # writes the compiled files
        for number in range(case.rounds):
            for variant, measure in list(measures.items()):
                if number >= variant.rounds:
                    continue
                tell(f"{case.name}: round {number + 1} of {case.rounds}, {variant.label}")
                result = measure()
                if "unsupported" in result:
                    failed[variant.label] = result
                    del measures[variant]
                    continue
                results.setdefault(variant.label, []).append(result)
    summary: Measured = {
        label: {name: median(r[name] for r in rounds) for name in rounds[0]} | {"rounds": len(rounds)}
        for label, rounds in results.items()
    }
    if case.name in IDEAL:
        summary["ideal"] = dict(IDEAL[case.name])
    return {**failed, **summary}


def import_time(job: str, variant: Variant) -> dict[str, Any]:
    """CPU and peak memory of an import in a fresh interpreter, its own start left out."""
    program = _IMPORTS[variant.label] if job == "import" else _FIRST_AGENT.format(contender=variant.contender)
    code = (
        "import time; t = time.process_time()\n"
        f"{program}\n"
        "t = time.process_time() - t\n"
        "import json; from benchmarks.worker import peak; print(json.dumps({'cpu': t, 'peak': peak()}))"
    )
    # Compiled files for all, whatever this environment says: an installed package has them.
    environ = {**os.environ, "PYTHONPYCACHEPREFIX": str(RESULTS / f"pycache-{variant.env}")}
    environ.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [python_of(variant.env), "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"unsupported": f"failed: {done.stderr.strip().splitlines()[-1]}"}
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured
