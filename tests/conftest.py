"""What every test runs under: one backend, and an event loop that may not be blocked."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from blockbuster import BlockBuster, blockbuster_ctx

from kern.models.resolve import load
from kern.tools.arguments import load_pydantic
from tests.databases import SHARED, place_of
from tests.postgres import NONE, Postgres, binaries, server
from tests.redis_server import NO_REDIS, RedisServer, redis_server

# A shell that starts the tests in the background has Ctrl-C ignored, and what they start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# What the first agent reads from the disk, pydantic's first model and the provider: here on a test's loop.
load_pydantic()
load(None)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def blockbuster() -> Iterator[BlockBuster]:
    with blockbuster_ctx("kern") as bb:
        for name in ("os.path.abspath", "os.stat", "os.lstat", "os.readlink"):
            # A database's file is told from others by its real path, once, when the object is made.
            if name in bb.functions:
                bb.functions[name].can_block_in("kern/db/sqlite.py", {"_real_path"})
        for function in bb.functions.values():  # the driver looks for files of certificates and passwords
            function.can_block_in("asyncpg/connect_utils.py", {"_parse_connect_dsn_and_args"})
            function.can_block_in("redis/utils.py", {"get_lib_version"})  # at each connection
            # A cassette is read before the first run and written after the last one.
            function.can_block_in("kern/testing/cassette.py", {"read", "write", "cassette"})
            function.can_block_in("tests/durable/desk.py", {"add", "lines"})
        yield bb


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A Postgres server for all tests of this process; each makes tables of its own (`new_tables`)."""
    if binaries() is None:
        pytest.skip(NONE)
    with server() as made:
        yield made


@pytest.fixture(scope="session")
def shared_redis() -> Iterator[RedisServer]:
    """A Redis server for all tests of this process that leave it as it is."""
    with redis_server() as made:
        yield made


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for none in (NONE, NO_REDIS):
        skipped = [
            report for report in terminalreporter.getreports("skipped") if none in str(report.longrepr)
        ]
        if skipped:
            terminalreporter.write_line(f"{len(skipped)} tests were not run: {none}")


@pytest.fixture(params=SHARED)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database that several processes can use, for `tests.databases.opened`."""
    return place_of(request.param, tmp_path, request)
