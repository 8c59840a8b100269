"""`kern db`: creates or migrates the tables of a Postgres database before the application starts."""

from __future__ import annotations

import argparse
import asyncio
from typing import TYPE_CHECKING

from kern.cli._report import report
from kern.db.postgres import PostgresDb

if TYPE_CHECKING:
    Parsers = argparse._SubParsersAction[argparse.ArgumentParser]


def add_db_parser(commands: Parsers) -> None:
    """Add the command's parser."""
    parser = commands.add_parser("db", help="create or migrate the tables of a Postgres database")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    migration = verbs.add_parser(
        "migrate",
        help="create the tables, or migrate them to this version of Kern",
        description="Creates the tables of a PostgresDb, or migrates them to this version of Kern. If "
        "several processes do so at once, one of them does the work. Use it for applications whose role may "
        "not create tables: PostgresDb(..., create_tables=False).",
    )
    migration.add_argument(
        "url",
        metavar="URL",
        help="such as postgresql://admin@host:5432/database; the password may be in PGPASSWORD or ~/.pgpass",
    )
    migration.add_argument(
        "--session-table", metavar="NAME", default="kern_sessions", help="as in PostgresDb"
    )
    migration.add_argument("--schema", metavar="NAME", help="as in PostgresDb; created if it does not exist")
    migration.set_defaults(run=migrate)


def migrate(options: argparse.Namespace) -> int:
    """`kern db migrate`; returns its exit code."""
    db = PostgresDb(options.url, session_table=options.session_table, schema=options.schema)
    before, after = asyncio.run(db.migrate())
    done = "already has" if before == after else f"was brought from version {before} to"
    report(f"{options.session_table} {done} version {after}")
    return 0
