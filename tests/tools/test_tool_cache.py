"""Results of tools that are kept in files: found again, dropped in time, never somebody else's."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from kern import Agent, RunContext, Toolkit, UsageError, tool
from kern.messages import Image, ToolCall
from kern.testing import ScriptedModel
from kern.tools.cache import ResultCache
from kern.tools.function import Function

LOOKED_UP: list[str] = []


async def result_of(function: Any, arguments: str = "{}") -> tuple[str, bool]:
    """What the model is told of one call, and whether as an error."""
    call = ToolCall("call_1", function.name, arguments)
    output = await Agent(model=ScriptedModel([call, "done"]), tools=[function]).arun("go")
    (execution,) = output.tools
    return execution.result or "", execution.tool_call_error


def look_up(word: str, case: str = "lower") -> dict[str, str]:
    LOOKED_UP.append(word)
    return {"word": word, "case": case}


def counted(folder: Path, **options: Any) -> tuple[Function[..., Any], list[str]]:
    """A tool that is kept, made anew, and the calls that reach its function."""
    LOOKED_UP.clear()
    return Function(look_up, **{"cache_results": True, "cache_dir": folder, **options}), LOOKED_UP


def kept_in(folder: Path) -> list[Path]:
    return list(folder.iterdir())


def hidden() -> str:
    return "a result"


async def test_a_kept_result_is_found_again_by_other_objects(tmp_path: Path) -> None:
    arguments = '{"word": "milk"}'
    first, calls = counted(tmp_path)
    expected = ('{"word":"milk","case":"lower"}', False)
    assert await result_of(first, arguments) == expected
    assert await result_of(first, arguments) == expected
    assert calls == ["milk"]
    again, later = counted(tmp_path)
    assert await result_of(again, arguments) == expected
    assert later == []
    assert await result_of(again, '{"word": "eggs"}') == ('{"word":"eggs","case":"lower"}', False)
    assert await result_of(again, '{"case": "upper", "word": "milk"}') == (
        '{"word":"milk","case":"upper"}',
        False,
    )
    assert later == ["eggs", "milk"]


async def test_a_kept_result_is_dropped_when_its_time_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    function, calls = counted(tmp_path, cache_ttl=60)
    await result_of(function, '{"word": "milk"}')
    now = time.time()
    monkeypatch.setattr("kern.tools.cache.time.time", lambda: now + 59)
    await result_of(function, '{"word": "milk"}')
    assert calls == ["milk"]
    monkeypatch.setattr("kern.tools.cache.time.time", lambda: now + 61)
    await result_of(function, '{"word": "milk"}')
    assert calls == ["milk", "milk"]


@pytest.mark.parametrize("rubbish", [b"", b"{", b"[]", b'{"kept_at": "x", "result": 1}', b"\xff"])
async def test_a_broken_file_in_the_cache_is_made_anew(tmp_path: Path, rubbish: bytes) -> None:
    function, calls = counted(tmp_path)
    await result_of(function, '{"word": "milk"}')
    (kept,) = kept_in(tmp_path)
    kept.write_bytes(rubbish)
    assert await result_of(function, '{"word": "milk"}') == ('{"word":"milk","case":"lower"}', False)
    assert calls == ["milk", "milk"]
    assert await result_of(function, '{"word": "milk"}') == ('{"word":"milk","case":"lower"}', False)
    assert calls == ["milk", "milk"]


async def test_errors_and_media_are_not_kept(tmp_path: Path) -> None:
    calls: list[str] = []

    @tool(cache_results=True, cache_dir=tmp_path)
    def fail() -> None:
        calls.append("fail")
        raise ValueError("oh")

    @tool(cache_results=True, cache_dir=tmp_path)
    async def draw() -> Image:
        calls.append("draw")
        return Image(content=b"\x89PNG")

    for _ in range(2):
        assert await result_of(fail) == ("ValueError: oh", True)
        assert await result_of(draw) == ("[image]", False)
    assert calls == ["fail", "draw"] * 2
    assert kept_in(tmp_path) == []


async def test_a_folder_that_cannot_be_used_keeps_nothing_and_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    function, calls = counted(tmp_path / "file")
    for _ in range(2):
        assert await result_of(function, '{"word": "milk"}') == ('{"word":"milk","case":"lower"}', False)
    assert calls == ["milk", "milk"]


async def test_two_objects_with_other_attributes_do_not_share_results(tmp_path: Path) -> None:
    class Shop(Toolkit):
        def __init__(self, town: str) -> None:
            self.town = town
            super().__init__(name="shop", tools=[self.address], cache_results=True, cache_dir=tmp_path)

        async def address(self) -> str:
            return f"Main Street, {self.town}"

    for town in ("Rome", "Oslo", "Rome"):
        shop = Shop(town)
        assert await result_of(shop.functions["address"]) == (f"Main Street, {town}", False)
    assert len(kept_in(tmp_path)) == 2


async def test_closures_over_different_values_do_not_share_results(tmp_path: Path) -> None:
    def make(town: str) -> Function[..., Any]:
        @tool(cache_results=True, cache_dir=tmp_path)
        def address() -> str:
            return town

        return address

    assert [await result_of(make(town)) for town in ("Rome", "Oslo", "Rome")] == [
        ("Rome", False),
        ("Oslo", False),
        ("Rome", False),
    ]
    assert len(kept_in(tmp_path)) == 2


async def test_hooks_run_even_where_the_result_is_kept(tmp_path: Path) -> None:
    seen: list[str] = []

    def audit(function_call: Any, arguments: dict[str, Any]) -> Any:
        result = function_call(**arguments)
        seen.append(result)
        return result

    @tool(cache_results=True, cache_dir=tmp_path, tool_hooks=[audit])
    async def price() -> int:
        return 12

    assert [await result_of(price), await result_of(price)] == [("12", False)] * 2
    assert seen == ["12", "12"]


def test_a_tool_with_a_run_context_cannot_be_cached() -> None:
    def add(run_context: RunContext, item: str) -> None: ...

    with pytest.raises(UsageError, match="cache_results cannot be combined with run_context"):
        tool(cache_results=True)(add)
    toolkit = Toolkit("kit", [add, hidden], cache_results=True)
    assert {name: function.cache_results for name, function in toolkit.functions.items()} == {
        "add": False,
        "hidden": True,
    }


async def test_processes_that_write_the_same_result_at_once_leave_a_whole_one(tmp_path: Path) -> None:
    program = textwrap.dedent(
        """
        import sys
        from kern.tools.cache import ResultCache
        from kern.tools.function import Function

        def look_up(word: str) -> str:
            return word * 200_000

        cache = ResultCache(Function(look_up, cache_results=True, cache_ttl=0.0001, cache_dir=sys.argv[1]))
        for _ in range(60):
            assert cache.get_or_make({"word": "milk"}, lambda: look_up("milk")) == "milk" * 200_000
        """
    )

    async def child() -> int:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-W",
            "error",
            "-c",
            program,
            str(tmp_path),
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        _, errors = await process.communicate()
        assert not errors, errors.decode()
        return process.returncode or 0

    assert await asyncio.gather(child(), child(), child()) == [0, 0, 0]
    (kept,) = kept_in(tmp_path)
    assert kept.suffix == ".json"


def test_the_default_folder_is_used_only_if_it_is_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kern.tools.cache.tempfile.gettempdir", lambda: str(tmp_path))
    cache = ResultCache(Function(hidden, cache_results=True))
    assert cache.get_or_make({}, lambda: "one") == "one"
    assert cache.get_or_make({}, lambda: "two") == "one"
    (folder,) = tmp_path.iterdir()
    folder.chmod(0o777)  # anybody could have put a result there
    assert cache.get_or_make({}, lambda: "two") == "two"
