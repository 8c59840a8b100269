"""`PostgresDb` behind PgBouncer in transaction mode, which gives every statement another connection."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from kern.db.postgres import PostgresDb
from kern.errors import StoreError
from kern.testing.db import DbConformance, counting_commit
from tests.postgres import PORT, USER, Postgres, as_nobody, give_to_nobody, new_tables

PGBOUNCER = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")

pytestmark = pytest.mark.skipif(PGBOUNCER is None, reason="there is no PgBouncer: apt-get install pgbouncer")

SETTINGS = """
[databases]
postgres = host={server} port={port} user={user}
[pgbouncer]
listen_addr =
unix_socket_dir = {folder}
listen_port = {port}
auth_type = any
pool_mode = transaction
default_pool_size = 3
max_client_conn = 200
max_prepared_statements = 0
logfile = {folder}/log
"""


@pytest.fixture(scope="module")
def pooler(postgres: Postgres) -> Iterator[str]:
    """The URL of a pooler with three connections to the server."""
    assert PGBOUNCER is not None
    folder = Path(tempfile.mkdtemp(prefix="kern-pgb-"))
    settings = SETTINGS.format(folder=folder, server=postgres.folder, port=PORT, user=USER)
    told = subprocess.run([PGBOUNCER, "--version"], capture_output=True, text=True, check=True).stdout
    if told.split()[1].split(".") < ["1", "21"]:  # which knows of no prepared statements
        settings = settings.replace("max_prepared_statements = 0\n", "")
    (folder / "settings").write_text(settings)
    give_to_nobody(folder)
    process = subprocess.Popen(
        [PGBOUNCER, "-q", str(folder / "settings")], stderr=subprocess.DEVNULL, **as_nobody()
    )
    try:
        while not (folder / f".s.PGSQL.{PORT}").exists():
            assert process.poll() is None
            time.sleep(0.01)
        yield f"postgresql://{USER}@/postgres?host={folder}&port={PORT}"
    finally:
        process.terminate()
        process.wait(10)
        shutil.rmtree(folder, ignore_errors=True)


class TestPostgresDbBehindPgBouncer(DbConformance):
    @pytest.fixture
    async def db(self, pooler: str) -> AsyncIterator[PostgresDb]:
        db = PostgresDb(pooler, session_table=new_tables(), statement_cache_size=0)
        yield db
        await db.aclose()


async def test_with_prepared_statements_it_says_what_to_do(pooler: str) -> None:
    db = PostgresDb(pooler, session_table=new_tables(), busy_timeout=2.0)

    async def work(n: int) -> None:
        for _ in range(50):
            await db.commit(counting_commit(f"s{n}"))
            await db.load_runs(f"s{n}")

    done = await asyncio.gather(*(work(n) for n in range(8)), return_exceptions=True)
    errors = [error for error in done if isinstance(error, BaseException)]
    assert all(isinstance(error, StoreError) for error in errors)
    assert any("pass statement_cache_size=0" in str(error) for error in errors)
    await db.aclose()
