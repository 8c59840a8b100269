"""`kern db`: the tables of a Postgres database, made or brought up to date before the application starts."""

from __future__ import annotations

import argparse
import asyncio
from typing import TYPE_CHECKING

from kern.cli._report import told
from kern.db.postgres import PostgresDb

if TYPE_CHECKING:
    Parsers = argparse._SubParsersAction[argparse.ArgumentParser]


def add_db_parser(commands: Parsers) -> None:
    """Add the command's parser."""
    parser = commands.add_parser("db", help="make the tables of a Postgres database")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    migration = verbs.add_parser(
        "migrate",
        help="make the tables, or bring them up to date",
        description="Makes the tables of a PostgresDb, or brings them up to date with this Kern. Of several "
        "that do it at once, one does it. For applications whose role may make no tables: "
        "PostgresDb(..., create_tables=False).",
    )
    migration.add_argument(
        "url",
        metavar="URL",
        help="such as postgresql://admin@host:5432/database; the password may be in PGPASSWORD or ~/.pgpass",
    )
    migration.add_argument(
        "--session-table", metavar="NAME", default="kern_sessions", help="as in PostgresDb"
    )
    migration.add_argument("--schema", metavar="NAME", help="as in PostgresDb; it is made if it is not there")
    migration.set_defaults(run=migrate)


def migrate(options: argparse.Namespace) -> int:
    """`kern db migrate`; returns its exit code."""
    db = PostgresDb(options.url, session_table=options.session_table, schema=options.schema)
    before, after = asyncio.run(db.migrate())
    done = "already has" if before == after else f"was brought from version {before} to"
    told(f"{options.session_table} {done} version {after}")
    return 0
