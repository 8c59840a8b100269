"""Results of tools that are kept in files, for any process of the same user."""

from __future__ import annotations

import functools
import getpass
import hashlib
import os
import stat
import tempfile
import time
import types
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from weakref import WeakKeyDictionary

from pydantic_core import PydanticSerializationError, from_json, to_json

from kern._log import named
from kern.tools.function import Function
from kern.tools.result import result_of
from kern.tools.signature import describe
from kern.tools.toolkit import Toolkit

log: Final = named("kern")

_OF_TOOLKITS = frozenset({"name", "instructions", "functions"})


class ResultCache:
    """The kept results of one tool. Every method blocks.

    A result is found again by the tool and its arguments: a function by its module and name, with what it
    closes over or a partial has fixed; a method also by the attributes of its object. Of what is no plain
    data, the object itself counts, so that such results are found in this process only.

    What is kept is the text that the model is told, and so a hook sees a text whether it was kept or not.
    Errors and results with media are not kept.

    Args:
        function: The tool, with its `cache_ttl` and `cache_dir`.
    """

    def __init__(self, function: Function) -> None:
        self._function = function

    def get_or_make(self, arguments: Mapping[str, Any], make: Callable[[], Any]) -> Any:
        """The kept result for `arguments`, or what `make` returns, which is kept from now on."""
        given = self._function.cache_dir
        folder = Path(given) if given is not None else _default_folder()
        if not _ready(folder, ours=given is None):
            log.warning("tool %s: results cannot be cached in %s", self._function.name, folder)
            return make()
        path = folder / f"{self._key(arguments)}.json"
        kept = self._read(path)
        if kept is not None:
            return kept
        value = make()
        result = result_of(value)
        if result.media:
            return value
        self._write(path, result.text)
        return result.text

    def _key(self, arguments: Mapping[str, Any]) -> str:
        function = self._function
        identity = [function.name, describe(function.entrypoint), *_bound(function.entrypoint)]
        named = {name: arguments[name] for name in sorted(arguments)}
        try:
            text = to_json([identity, named], fallback=_token, inf_nan_mode="constants")
        except (PydanticSerializationError, ValueError):  # something that holds itself: never found again
            return uuid.uuid4().hex
        return hashlib.sha256(text).hexdigest()

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
        # Readers and writers of other processes see the old file or the new one, never a half of either.
        temporary = path.with_name(f"{path.stem}.{uuid.uuid4().hex}.tmp")
        try:
            temporary.write_bytes(to_json({"kept_at": time.time(), "result": result}))
            os.replace(temporary, path)
        except (OSError, ValueError) as error:
            temporary.unlink(missing_ok=True)
            log.warning("tool %s: its result cannot be cached: %s", self._function.name, error)


def _default_folder() -> Path:
    return Path(tempfile.gettempdir()) / f"kern-tools-{getpass.getuser()}"


def _ready(folder: Path, *, ours: bool) -> bool:
    """The folder is there. One of `ours`, in a place where anybody may make one, must be nobody else's: what
    is written there is told to the model as a result.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return False
    if not ours or not hasattr(os, "getuid"):
        return True
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022


def _bound(function: Callable[..., Any]) -> Iterator[Any]:
    """What a callable has with it beside its code."""
    if isinstance(function, functools.partial):
        yield [function.args, function.keywords]
        yield from _bound(function.func)
    elif isinstance(function, types.MethodType):
        yield _attributes(function.__self__)
        yield from _bound(function.__func__)
    elif isinstance(function, types.FunctionType):
        empty = types.CellType()
        yield [cell.cell_contents for cell in function.__closure__ or () if cell != empty]
    elif not isinstance(function, type):
        yield _attributes(function)


def _attributes(owner: Any) -> Any:
    if isinstance(owner, type):
        return describe(owner)
    attributes = getattr(owner, "__dict__", None)
    if attributes is None:
        return _token(owner)
    hidden = _OF_TOOLKITS if isinstance(owner, Toolkit) else frozenset()
    return [describe(type(owner)), {name: attributes[name] for name in sorted(attributes.keys() - hidden)}]


_tokens: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


def _token(value: Any) -> str:
    """A name for an object that nothing else has, in this process and all others."""
    try:
        return _tokens.setdefault(value, uuid.uuid4().hex)
    except TypeError:  # it cannot be referred to weakly, or not be hashed: never found again
        return uuid.uuid4().hex
