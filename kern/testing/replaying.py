"""One recorded run: recorded, replayed, or played up to a step and then for real."""

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
        input: What it is asked.
        path: The file, which is replaced. A run that fails is recorded as well.
        options: As for `arun`, without `stream`.

    Raises:
        UsageError: A stream is asked for.
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
    """Replay a recorded run, strictly: no model is asked and no tool is called.

    Raises:
        ReplayMismatch: The run comes to something else than what is recorded.
        KernError: As the recorded run has ended.
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
    """Play a recorded run up to a step, and go on from there for real: what would have happened if?

    Prompts are made anew: with other instructions than the recorded ones, the step is asked with these.

    Args:
        runner: The agent or team, which may be another one than was recorded: with other instructions, say.
        path: The file of the recorded run.
        at: The first step that is done for real: its key in the file, or the number of a request of the
            top-level run, from 0. All that was done after it is done for real as well.
        model: The model of `runner`, in place of its own.
        options: As for `arun`.

    Raises:
        UsageError: There is no such step.
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
    """See that the run has an output to return."""
    if options.get("stream"):
        raise UsageError("record, replay and fork return an output: for a stream, use cassette(path, mode)")


def _first(tape: Cassette) -> RecordedRun:
    """The run to be played."""
    if not tape.runs:
        raise UsageError(f"{tape.path} holds no run; record one with record(agent, input, path)")
    return tape.runs[0]


def _input(run: RecordedRun) -> Any:
    """What the run was asked, as it was given."""
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
        raise UsageError(f"at={at!r} is no step of the recorded run; it has: {', '.join(keys)}")
    end = keys.index(at)
    while end and run.steps[end - 1]["kind"] == "change":  # a commit belongs to the step that comes after it
        end -= 1
    del run.steps[end:]
