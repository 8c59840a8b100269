"""Many inputs at once: `amap` and `map`."""

from __future__ import annotations

import asyncio
import hashlib
import reprlib
import uuid
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, Unpack, cast, get_args

from kern._error_text import message_of
from kern._json import json_bytes
from kern._keywords import check_keywords
from kern._traceback import ShortTraceback
from kern.console import Progress, open_progress
from kern.durable.fingerprint import check_same_input, fingerprint
from kern.errors import KernError, RunConflictError, RunMismatch, UsageError
from kern.run.output import AnyRunOutput, RunStatus
from kern.runner.compile import database_of
from kern.runner.definition import Definition, id_of
from kern.runner.input_schema import Input
from kern.runner.options import MapKeywords, RunKeywords, RunOptions, as_json, run_input
from kern.runner.running import Running
from kern.runtime.duplicates import known_fingerprint
from kern.runtime.portal import portal
from kern.runtime.stored_runs import load_output

OutputT = TypeVar("OutputT", bound=AnyRunOutput)

OnError = Literal["collect", "raise"]

_RUNS = uuid.UUID("6f0d8bde-6f4c-5f0e-9a54-0c3e2f6f6a01")
_SESSIONS = uuid.UUID("6f0d8bde-6f4c-5f0e-9a54-0c3e2f6f6a02")
"""The UUID namespaces of the ids that are derived from a batch. Never change them: a batch that was started
before would not find its runs again."""

_POLL_SECONDS = 0.5
"""How long to wait before asking again whether another process has finished an item."""


@dataclass(slots=True, frozen=True)
class _Item:
    """One input, with the ids of its run and session."""

    input: Input
    run_id: str
    session_id: str


class Batches(Running[OutputT]):
    """Runs an agent or a team on many inputs."""

    __slots__ = ()

    async def amap(
        self,
        inputs: Iterable[Input],
        *,
        batch: str | None = None,
        key: Callable[[Any], str | int | uuid.UUID] | None = None,
        concurrency: int = 40,
        on_error: OnError = "collect",
        progress: bool | None = None,
        **options: Unpack[MapKeywords],
    ) -> list[OutputT]:
        """Run on each of `inputs`, many at a time, each in a session of its own.

            outputs = await agent.amap(reviews, batch="reviews-2026-11", key=lambda review: review["id"])

        With a `batch`, the run id and session id of each item are derived from the id of this agent or team,
        the name of the batch, and the item's key. A second start of the same batch, after a crash or with
        more inputs, therefore makes only the runs that are not stored yet or have failed, and returns the
        stored outputs of the others. An item whose key belonged to another input before fails with
        `RunMismatch`. A batch needs a `db` that outlives the process, and an `id` or a `name`.

        Args:
            inputs: What the model is asked, as for `arun`.
            batch: The name of the batch. Without one, all ids are random and every item is run.
            key: Returns what identifies an item in the batch, such as the id of a record. Default: the input
                itself; two equal inputs are then an error.
            concurrency: The maximum number of runs in progress at the same time.
            on_error: What happens when an item fails: "collect" puts its output, with status ERROR, among the
                others; "raise" cancels the items in progress, and raises the error.
            progress: Show a progress bar. Default: if standard error is a terminal.
            options: The keywords of a run (`kern.runner.options.RunOptions`), the same for every item.

        Returns:
            The outputs, in the order of the inputs.

        Raises:
            UsageError: An argument is invalid; nothing was run.
            KernError: An item failed, with `on_error="raise"`.
        """
        check_keywords("amap", options, MapKeywords.__optional_keys__)
        if on_error not in get_args(OnError):
            raise UsageError(f"on_error must be 'collect' or 'raise', not {on_error!r}")
        count: object = concurrency
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise UsageError(f"concurrency must be a whole number, 1 or more, not {concurrency!r}")
        name: object = batch
        if name is not None and (not isinstance(name, str) or not name):
            raise UsageError(f"batch must be a name, a str that is not empty, not {batch!r}")
        items = _items(self, inputs, batch, key, options)
        todo = iter(enumerate(items))
        outputs: dict[int, OutputT] = {}

        async def work(shown: Progress) -> None:
            for at, item in todo:
                output = outputs[at] = await self._one(item, batch is not None, on_error, options)
                shown.advance(failed=output.status is RunStatus.error)

        with open_progress(id_of(self), len(items), progress) as shown:
            await _together([work(shown) for _ in range(min(concurrency, len(items)))])
        return [outputs[at] for at in range(len(items))]

    def map(
        self,
        inputs: Iterable[Input],
        *,
        batch: str | None = None,
        key: Callable[[Any], str | int | uuid.UUID] | None = None,
        concurrency: int = 40,
        on_error: OnError = "collect",
        progress: bool | None = None,
        **options: Unpack[MapKeywords],
    ) -> list[OutputT]:
        """`amap` for sync code. Ctrl-C cancels the runs in progress, waits for their end, and is raised."""
        with ShortTraceback(whole=self._debugs(options)):
            return portal.call(
                lambda: self.amap(
                    inputs,
                    batch=batch,
                    key=key,
                    concurrency=concurrency,
                    on_error=on_error,
                    progress=progress,
                    **options,
                )
            )

    async def _one(self, item: _Item, stored: bool, on_error: OnError, options: MapKeywords) -> OutputT:
        """The output of an item, stored or new."""
        try:
            while True:
                try:
                    return await self._run(item, stored, options)
                except RunMismatch:
                    raise
                except RunConflictError:  # another process runs it, died during it, or has just ended it
                    row = await database_of(self).load_run(item.run_id) if stored else None
                    if not stored or (row is not None and row.parent_run_id is not None):
                        raise
                await asyncio.sleep(_POLL_SECONDS)
        except KernError as error:
            if on_error == "raise":
                raise
            return cast("OutputT", error.run_output or self._failed(item, error))

    async def _run(self, item: _Item, stored: bool, options: MapKeywords) -> OutputT:
        db = database_of(self)
        row = await db.load_run(item.run_id) if stored else None
        if row is not None and row.status == RunStatus.paused.value:
            asked = run_input(item.input, self.input_schema, RunOptions.of(cast("RunKeywords", options)))
            given = fingerprint(asked.value, asked.messages)
            check_same_input(item.run_id, known_fingerprint(row), given)
            return cast("OutputT", await load_output(db, row))
        done = row is not None and row.status == RunStatus.completed.value
        return await self.arun(
            item.input,
            run_id=item.run_id,
            session_id=item.session_id,
            on_duplicate="return" if done else "retry_failed",
            **options,
        )

    def _failed(self, item: _Item, error: KernError) -> AnyRunOutput:
        """Make the output of an item whose run was refused."""
        return self._output_type(
            run_id=item.run_id,
            session_id=item.session_id,
            input=_shown(item.input),
            status=RunStatus.error,
            error=message_of(error),
            error_type=type(error).__name__,
        )


def _items(
    definition: Definition,
    inputs: Iterable[Input],
    batch: str | None,
    key: Callable[[Any], str | int | uuid.UUID] | None,
    options: MapKeywords,
) -> list[_Item]:
    """Give each input its run id and session id: derived from the batch, or random without one.

    Raises:
        UsageError: Two inputs have the same key, or an input has none that a second start would find again.
    """
    if isinstance(inputs, str | dict) or not isinstance(inputs, Iterable):
        raise UsageError(
            f"amap takes a list of inputs, not a {type(inputs).__name__}; use arun for a single input"
        )
    if batch is None:
        if key is not None:
            raise UsageError("key has no effect without a batch: pass batch= too, the name of the batch")
        return [_Item(item, str(uuid.uuid4()), str(uuid.uuid4())) for item in inputs]
    if definition.id is None and definition.name is None:
        raise UsageError(
            "a batch needs an agent or team with an id or a name, so that a second start finds its runs"
        )
    given = options.get("user_id")
    user_id = definition.user_id if given is None else given
    base = json_bytes([id_of(definition), user_id, batch])
    items: list[_Item] = []
    seen: dict[str, int] = {}
    for at, item in enumerate(inputs):
        identity = _key_of(item, key)
        if (other := seen.setdefault(identity, at)) != at:
            raise UsageError(
                f"the inputs {other} and {at} of the batch {batch!r} have the same key, {identity[:80]!r}: "
                "pass a key= that differs for each item"
            )
        name = hashlib.sha256(json_bytes([base.decode(), identity])).hexdigest()
        items.append(_Item(item, str(uuid.uuid5(_RUNS, name)), str(uuid.uuid5(_SESSIONS, name))))
    return items


def _shown(input: Input) -> Any:
    """Return the input for the output of a run that was refused: JSON, or its `repr` if it is not JSON."""
    try:
        return as_json(input)
    except (ValueError, TypeError, RecursionError, KernError):
        return reprlib.repr(input)


def _key_of(item: Input, key: Callable[[Any], str | int | uuid.UUID] | None) -> str:
    if key is None:
        try:
            return json_bytes(as_json(item)).decode()
        except (ValueError, TypeError, RecursionError, KernError) as error:
            raise UsageError(
                f"an input of a batch cannot be written as JSON, so it needs a key=: {reprlib.repr(item)}"
            ) from error
    identity: object = key(item)
    if isinstance(identity, int | uuid.UUID) and not isinstance(identity, bool):
        return str(identity)
    if not isinstance(identity, str) or not identity:
        raise UsageError(
            f"key must return a text that is not empty, or a number, but returned {identity!r} for an input"
        )
    return identity


async def _together(jobs: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Await all jobs. The first error cancels the others, and is raised when they have ended."""
    try:
        async with asyncio.TaskGroup() as group:
            for job in jobs:
                group.create_task(job)
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
