from __future__ import annotations

import pytest
from blockbuster import BlockBuster

pytest.register_assert_rewrite("kern.testing.db")


@pytest.fixture(autouse=True)
def blockbuster(blockbuster: BlockBuster) -> BlockBuster:
    # A path is made absolute where a SqliteDb is constructed: an lstat per folder, and no file is opened.
    for name in ("os.path.abspath", "os.path.islink", "os.readlink", "os.getcwd", "os.stat"):
        blockbuster.functions[name].can_block_in("kern/db/sqlite.py", "_real_path")
    return blockbuster
