"""A Redis of the tests' own, on a Unix socket: what is installed, or the program in `$KERN_REDIS_SERVER`."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

NO_REDIS = (
    "there is no Redis server here: apt-get install redis-server, or name a redis-server or valkey-server in "
    "KERN_REDIS_SERVER"
)


def program() -> str | None:
    """The server's program; None if there is none."""
    named = os.environ.get("KERN_REDIS_SERVER")
    return named or shutil.which("redis-server") or shutil.which("valkey-server")


class RedisServer:
    """A server that can be killed, stopped and started again; it forgets all when it ends.

    Args:
        folder: Where its socket is.
        more: Further options of the program.
    """

    def __init__(self, folder: Path, more: Sequence[str] = ()) -> None:
        self.socket = folder / "redis"
        self._more = more
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        found = program()
        assert found is not None
        self.socket.unlink(missing_ok=True)
        options = ("--port", "0", "--unixsocket", str(self.socket), "--save", "", "--appendonly", "no")
        started = [found, *options, *self._more]
        self._process = subprocess.Popen(started, stdout=subprocess.DEVNULL, cwd=self.socket.parent)
        deadline = time.monotonic() + 20
        while not self._answers():
            assert self._process.poll() is None, "the Redis server has ended"
            assert time.monotonic() < deadline, "the Redis server does not answer"
            time.sleep(0.02)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as link:
            try:
                link.connect(str(self.socket))
                link.sendall(b"PING\r\n")
                return link.recv(16).startswith(b"+PONG")
            except OSError:
                return False

    def tell(self, how: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(how)

    def kill(self) -> None:
        """Kill it, frozen or not."""
        self.tell(signal.SIGKILL)
        assert self._process is not None
        self._process.wait(20)


@contextmanager
def redis_server(*more: str) -> Iterator[RedisServer]:
    """A server of one's own; the test is skipped if there is no program."""
    if program() is None:
        pytest.skip(NO_REDIS)
    folder = Path(tempfile.mkdtemp(prefix="kern-redis-"))
    made = RedisServer(folder, more)
    try:
        made.start()
        yield made
    finally:
        made.kill()
        shutil.rmtree(folder, ignore_errors=True)
