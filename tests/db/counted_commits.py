"""How many of the counting commits are in a file."""

from __future__ import annotations

import asyncio
from pathlib import Path

from kern.db import SqliteDb


def counted(path: Path) -> int:
    async def load() -> int:
        row = await SqliteDb(path).load_session("s")
        assert row is not None
        assert row.state == b'{"count":%d}' % row.version
        return row.version

    return asyncio.run(load())
