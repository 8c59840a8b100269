"""Values in the output of a run that cannot be stored.

A run whose content or metadata cannot be stored fails, and the rest of it is stored. Anything else is written
as text, or left out, and the log says so.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, get_args

from kern._json import check_depth, json_bytes, jsonable, value_text
from kern._log import named
from kern.errors import StoreError, UsageError
from kern.messages import MEDIA, Citation, Media, Message, Part, ProviderCall, TextPart
from kern.run.events import BaseRunEvent
from kern.run.output import AnyRunOutput, RunStatus
from kern.run.requirement import RunRequirement
from kern.run.tool_execution import ToolExecution
from kern.runtime.identity import end_output
from kern.runtime.run_tree import RunTree
from kern.usage import Metrics

log: Final = named("kern")

_LISTS: Mapping[str, type] = {
    "messages": Message,
    "tools": ToolExecution,
    "requirements": RunRequirement,
    "events": BaseRunEvent,
    "state_conflicts": dict,
    **MEDIA,
}
_DEEPEST = 100


class NotStored:
    """The values that functions of the application have put into outputs, and that are not JSON.

    They are taken out of the outputs until `put_back`, and the top run of the tree has failed.
    """

    def __init__(self, tree: RunTree) -> None:
        self._values: list[tuple[AnyRunOutput, str, Any]] = []
        self.error: UsageError | None = None
        for run in tree.runs:
            self.error = self._take_out_of(run.output) or self.error
        for output in _enclosed(tree):  # whose runs have failed for themselves
            self._take_out_of(output)
        if self.error is not None and tree.top.output.status in (RunStatus.completed, RunStatus.paused):
            end_output(tree.top.output, self.error)

    def _take_out_of(self, output: AnyRunOutput) -> UsageError | None:
        error = None
        if type(output.content) is not str and output.content is not None:
            error = self._look_at(output, "content", None)
        if output.metadata:
            error = self._look_at(output, "metadata", {}) or error
        return error

    def _look_at(self, output: AnyRunOutput, name: str, empty: Any) -> UsageError | None:
        value = getattr(output, name)
        try:
            if name == "metadata" and not isinstance(value, dict):
                raise ValueError(f"it is no dict: {type(value).__name__}")
            check_depth(json_bytes(jsonable(value)))
        except (ValueError, RecursionError) as cause:
            self._values.append((output, name, value))
            setattr(output, name, empty)
            error = UsageError(
                f"the run is stored as failed and without its {name}, which cannot be written as JSON: "
                f"{cause}; `run_output` of this error has the {name}"
            )
            error.__cause__ = cause
            return error
        return None

    def put_back(self) -> None:
        """Put the values back into the outputs, for the caller of the run."""
        for output, name, value in self._values:
            setattr(output, name, value)


def _enclosed(tree: RunTree) -> Iterator[AnyRunOutput]:
    for nested in tree.enclosed:
        for run in nested.runs:
            yield run.output
        yield from _enclosed(nested)


def written_anyway(output: AnyRunOutput, make: Callable[[], dict[str, Any]], error: Exception) -> bytes:
    """Write the row of a run that could not be written as it is. The log says so.

    Args:
        output: The output of the run. Values of a wrong type are taken out of its lists.
        make: Makes the row's data of it.
        error: Why the row could not be written.

    Raises:
        StoreError: The row cannot be written at all.
    """
    _drop_strangers(output, error)
    try:
        return json_bytes(plain_json(make()))
    except Exception as again:
        raise StoreError(
            f"run {output.run_id!r} was not saved: a value in its output cannot be stored: "
            f"{type(again).__name__}: {again}"
        ) from again


def _drop_strangers(output: AnyRunOutput, error: Exception) -> None:
    log.warning(
        "run %s: a value that a hook or the model has set cannot be stored, except as text: %s: %s",
        *(output.run_id, type(error).__name__, error),
    )
    for name, kind in _LISTS.items():
        setattr(output, name, _only(kind, getattr(output, name)))
    for message in output.messages:
        message.parts = _only(get_args(Part), message.parts)
        for part in message.parts:
            if isinstance(part, TextPart):
                part.citations = _only(Citation, part.citations)
            elif isinstance(part, ProviderCall):
                part.media = _only(Media, part.media)
    if not isinstance(getattr(output, "metrics"), Metrics):  # noqa: B009 - a hook may have set anything
        output.metrics = Metrics()
    try:
        jsonable(output.input)
    except (ValueError, RecursionError):
        output.input = value_text(output.input)


def _only(kinds: type | tuple[type, ...], items: Any) -> list[Any]:
    return [item for item in items if isinstance(item, kinds)] if isinstance(items, list | tuple) else []


def plain_json(value: Any, level: int = 0) -> Any:
    """The value as JSON data, whatever it is: what has no JSON form is written as text."""
    if value is None or isinstance(value, str | int | float):
        return value
    if level == _DEEPEST:
        return value_text(value)
    if isinstance(value, Mapping):
        return {
            key if isinstance(key, str) else value_text(key): plain_json(item, level + 1)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [plain_json(item, level + 1) for item in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    try:
        return jsonable(value)
    except (ValueError, RecursionError):
        return value_text(value)
