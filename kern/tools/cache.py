"""Caches results of tools in files, which all processes of a user share."""

from __future__ import annotations

import getpass
import os
import stat
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from pydantic_core import from_json, to_json

from kern._log import named
from kern.tools.cache_key import NoKeyError, key_of
from kern.tools.function import Function
from kern.tools.result import result_of

log: Final = named("kern")


class ResultCache:
    """The cached results of one tool. Every method blocks.

    The key of a result is the tool and its arguments: for a function its file, its code and its name, with
    its closure, its defaults and the arguments fixed by a partial; for a method also the attributes of its
    object. Other objects are keyed by identity and attributes, so their results are found in this process
    only. If an object has data that Python code cannot see, such as an open connection, the results are not
    cached, which is logged once.

    The cache holds the text that the model reads, and `get_or_make` returns that text for fresh results, too:
    a hook sees the same type either way. Errors and results with media are not cached.

    Args:
        function: The tool, with its `cache_ttl` and `cache_dir`.
    """

    def __init__(self, function: Function) -> None:
        self._function = function

    def get_or_make(self, arguments: Mapping[str, Any], make: Callable[[], Any]) -> Any:
        """The cached result for `arguments`, or the result of `make`, which is then cached."""
        given = self._function.cache_dir
        folder = Path(given) if given is not None else _default_folder()
        if not _ready(folder, ours=given is None):
            log.warning(
                "tool %s: results cannot be cached in %s: not a writable folder of this user",
                self._function.name,
                folder,
            )
            return make()
        try:
            key = key_of(self._function.name, self._function.entrypoint, arguments)
        except NoKeyError as error:
            _log_once(self._function.name, str(error))
            return make()
        path = folder / f"{key}.json"
        kept = self._read(path)
        if kept is not None:
            return kept
        value = make()
        result = result_of(value)
        if result.media:
            return value
        self._write(path, result.text)
        return result.text

    def _read(self, path: Path) -> str | None:
        try:
            entry = from_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            log.warning("tool %s: a cached result cannot be read: %s", self._function.name, error)
            return None
        match entry:
            case {"kept_at": float(kept_at), "result": str(result)}:
                age = time.time() - kept_at
                return result if 0 <= age < self._function.cache_ttl else None
        return None

    def _write(self, path: Path, result: str) -> None:
        # Renaming is atomic: other processes see the old file or the new one, never a part of it.
        temporary = path.with_name(f"{path.stem}.{uuid.uuid4().hex}.tmp")
        try:
            temporary.write_bytes(to_json({"kept_at": time.time(), "result": result}))
            os.replace(temporary, path)
        except (OSError, ValueError) as error:
            temporary.unlink(missing_ok=True)
            log.warning("tool %s: its result cannot be cached: %s", self._function.name, error)


@lru_cache(maxsize=256)
def _log_once(tool: str, why: str) -> None:
    log.warning("tool %s: its results are not cached, since its calls have no key: %s", tool, why)


def _default_folder() -> Path:
    return Path(tempfile.gettempdir()) / f"kern-tools-{getpass.getuser()}"


def _ready(folder: Path, *, ours: bool) -> bool:
    """Make the folder; whether it can be trusted. `ours`, in the shared folder for temporary files, must
    belong to this user and be writable for nobody else: a model reads its contents as results.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return False
    if not ours or not hasattr(os, "getuid"):
        return True
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022
