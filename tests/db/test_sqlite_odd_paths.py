"""A path that no database can have is refused, with what is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kern.db import SqliteDb
from kern.errors import StoreError, UsageError


@pytest.mark.parametrize("path", ["a\0b", "\ud800", b"a.db", 5, ["a.db"]])
def test_what_is_no_path_is_refused_at_once(path: Any) -> None:
    with pytest.raises(UsageError, match=r"db_file|not a valid file name"):
        SqliteDb(path)


def test_an_odd_url_is_refused_too() -> None:
    with pytest.raises(UsageError, match="not a valid file name"):
        SqliteDb(db_url="sqlite:///a\0b")


@pytest.mark.parametrize("below", ["a.db", "folder/a.db"])
async def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file is a file, not a folder"):
        await SqliteDb(tmp_path / "file" / below).load_session("s")


async def test_a_folder_in_the_place_of_the_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="it is a folder"):
        await SqliteDb(tmp_path).load_session("s")
