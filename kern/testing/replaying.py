"""Records one run, replays it, or forks it: replays it up to a step and continues for real."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import RootModel

from kern.durable.journal import Playback
from kern.errors import UsageError
from kern.messages import Message
from kern.models.base import Model
from kern.run.output import AnyRunOutput
from kern.runner.running import Running
from kern.testing._cassette_file import RecordedRun
from kern.testing.cassette import Cassette, cassette, in_use

OutputT = TypeVar("OutputT", bound=AnyRunOutput)


async def record(
    runner: Running[OutputT], input: Any, path: str | os.PathLike[str], **options: Any
) -> OutputT:
    """Run an agent or a team, and record the run to a file.

    Args:
        runner: The agent or team.
        input: The input of the run.
        path: The file, which is replaced. A failed run is recorded, too.
        options: The options of `arun`, without `stream`.

    Raises:
        UsageError: `stream` was passed.
    """
    _check_no_stream(options)
    tape = Cassette(Path(path), [], None)
    with in_use(tape):
        try:
            output: OutputT = await runner.arun(input, **options)
        finally:
            tape.write()
    return output


async def replay(runner: Running[OutputT], path: str | os.PathLike[str], **options: Any) -> OutputT:
    """Replay a recorded run, without calling models, tools or hooks.

    Args:
        runner: The agent or team.
        path: The file of the recorded run.
        options: The options of `arun`, without `stream`.

    Raises:
        ReplayMismatch: The run differs from its recording.
        KernError: The recorded run ended with this error.
    """
    _check_no_stream(options)
    with cassette(path) as tape:
        output: OutputT = await runner.arun(_input(_first(tape)), **options)
    return output


async def fork(
    runner: Running[OutputT],
    path: str | os.PathLike[str],
    *,
    at: str | int,
    model: Model | None = None,
    **options: Any,
) -> OutputT:
    """Replay a recorded run up to a step, and continue for real from there, to see what would have happened.

    Prompts are built again: with changed instructions, the model is asked with the new ones.

    Args:
        runner: The agent or team; it may differ from the recorded one, for example in its instructions.
        path: The file of the recorded run.
        at: The first step to do for real, as are all after it: the step's key in the file, or the number of
            a model request of the top-level run, from 0.
        model: A model to use instead of the runner's.
        options: The options of `arun`, without `stream`.

    Raises:
        UsageError: The recorded run has no such step.
    """
    _check_no_stream(options)
    tape = Cassette.read(Path(path), Playback.fork)
    run = _first(tape)
    _cut(run, f"{run.run_id}/model/{at}" if isinstance(at, int) else at)
    if model is not None:
        runner = copy.copy(runner)
        runner.model = model
    with in_use(tape):
        output: OutputT = await runner.arun(_input(run), **options)
    return output


def _check_no_stream(options: Mapping[str, Any]) -> None:
    """Check that the run is not streamed, so that it returns an output."""
    if options.get("stream"):
        raise UsageError("record, replay and fork cannot stream: for a stream, use cassette(path, mode)")


def _first(tape: Cassette) -> RecordedRun:
    """The first run in the file."""
    if not tape.runs:
        raise UsageError(f"{tape.path} contains no run; record one with record(agent, input, path)")
    return tape.runs[0]


def _input(run: RecordedRun) -> Any:
    """The input of the run, in its original type."""
    match run.form:
        case "message":
            return Message.from_dict(run.input)
        case "messages":
            return [Message.from_dict(item) for item in run.input]
        case "model":
            return RootModel[Any](run.input)
        case _:
            return run.input


def _cut(run: RecordedRun, at: str) -> None:
    keys = [step["key"] for step in run.steps]
    if at not in keys:
        raise UsageError(f"at={at!r}: the recorded run has no such step; its steps are: {', '.join(keys)}")
    end = keys.index(at)
    while end and run.steps[end - 1]["kind"] == "change":  # a commit belongs to the step after it
        end -= 1
    del run.steps[end:]
