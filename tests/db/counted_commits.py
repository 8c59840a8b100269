"""How many of the counting commits are in a database."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.databases import opened


def counted(place: str | Path) -> int:
    async def load() -> int:
        row = await opened(place).load_session("s")
        assert row is not None
        assert row.state == b'{"count":%d}' % row.version
        return row.version

    return asyncio.run(load())
