"""What every test runs under: one backend, and an event loop that may not be blocked."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from blockbuster import BlockBuster, blockbuster_ctx


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
        yield bb
