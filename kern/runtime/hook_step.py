"""A hook before or after a run as a step of a run with a journal: records its change of input or answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pydantic

from kern._json import jsonable
from kern.errors import KernError
from kern.runtime.run_tree import Run
from kern.runtime.step_data import (
    Data,
    call_key,
    error_data,
    error_from,
    messages_data,
    messages_from,
    reading,
)
from kern.runtime.steps import signalled


async def hook_before(run: Run, name: str, call: Callable[[], Awaitable[None]]) -> None:
    """Call a hook before the run, or apply its recorded change of the input.

    Raises:
        KernError: The error of the hook, new or recorded.
    """

    def result() -> Data:
        return {"value": _plain(run.input.value), **messages_data(run.input.messages)}

    before = result() if run.tree.steps is not None else {}

    def changed() -> Data:
        after = result()
        return {} if after == before else {"input": after}

    key, data = await _step(run, "before", name, call, changed)
    if data is not None and "input" in data:
        with signalled(), reading(key):
            run.input.value, run.input.messages = data["input"]["value"], messages_from(data["input"])


async def hook_after(run: Run, name: str, call: Callable[[], Awaitable[None]]) -> None:
    """Call a hook after the run, or apply its recorded change of the answer.

    Raises:
        KernError: The error of the hook, new or recorded.
    """
    output = run.output
    before = None if run.tree.steps is None else _plain(output.content)
    kind = type(output.content)

    def changed() -> Data:
        after = _plain(output.content)
        if after == before and type(output.content) is kind:
            return {}
        return {"content": after, "same_type": type(output.content) is kind}

    key, data = await _step(run, "after", name, call, changed)
    if data is not None and "content" in data:
        content = data["content"]
        if data.get("same_type") and issubclass(kind, pydantic.BaseModel):
            with signalled(), reading(key):
                content = kind.model_validate(content)
        output.content = content  # of another class: as JSON, since the record does not restore classes


async def _step(
    run: Run, side: str, name: str, call: Callable[[], Awaitable[None]], result: Callable[[], Data]
) -> tuple[str, Data | None]:
    """Return the key of the hook's step, and its recorded data; None if the hook was called now.

    The key has the hook's side and name: the record of another hook must not pass for this one's.
    """
    steps = run.tree.steps
    if steps is None:
        await call()
        return "", None
    key, owner = steps.number(run, call_key("hook", side, name)), (run.run_id, None)
    data = await steps.recorded(run, key)
    if data is not None:
        if "error" in data:
            with signalled(), reading(key):
                error = error_from(data["error"])
            raise error
        return key, data
    with steps.in_progress(owner):
        try:
            await call()
        except KernError as error:
            steps.tick(run)
            await steps.keep(run, "hook", key, {"hook": name, "error": error_data(error)}, owner)
            raise
        steps.tick(run)
        await steps.keep(run, "hook", key, {"hook": name, **result()}, owner)
    return key, None


def _plain(value: Any) -> Any:
    """Return a value as JSON, or its `repr` if it has no JSON form."""
    try:
        return jsonable(value)
    except ValueError:
        return repr(value)
