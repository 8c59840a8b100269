"""Reads and writes the file of a cassette; masks API keys in it, and checks it for damage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NotRequired

from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from kern._json import json_bytes
from kern._log import named
from kern.durable.journal import Entry
from kern.durable.keys import EnvironmentKeys
from kern.errors import KernError, UsageError
from kern.runtime.step_data import CHANGE, change_from, error_from, messages_from, outcome_from, response_from
from kern.state.codec import decode, encode
from kern.state.patch import apply

log: Final = named("kern")

FORMAT = 1
InputForm = Literal["message", "messages", "model"]


@dataclass(slots=True)
class RecordedRun:
    """One run in a cassette, or one part of a run that was paused.

    Args:
        run_id: The run's id; its replay has the same.
        runner: The id of the agent or team.
        input: The input as JSON data.
        continued: It continues a paused run.
        steps: The steps, in order; see `kern.runtime.steps`.
        form: The type of the input before it became JSON: a `Message`, a list of them, or a pydantic model.
    """

    run_id: str
    runner: str
    input: Any
    continued: bool
    steps: list[dict[str, Any]] = field(default_factory=list)
    form: InputForm | None = None


class _File(TypedDict):
    kern_cassette: Literal[1]
    runs: list[RecordedRun]


class _Step(TypedDict):
    key: str
    kind: str
    at: NotRequired[float]


class _Base(_Step):
    state: dict[str, Any]
    revision: Annotated[int, Field(ge=0)]
    stored: bool
    told: NotRequired[int]


class _Error(TypedDict):
    type: str
    message: str
    attributes: NotRequired[dict[str, Any]]


class _Prompt(_Step):
    given: dict[str, Any]


class _Asked(TypedDict):
    after: Annotated[int, Field(ge=0)]
    messages: list[dict[str, Any]]
    without: NotRequired[list[str]]


class _Model(_Step):
    error: NotRequired[_Error]
    asked: NotRequired[_Asked]
    deltas: NotRequired[list[tuple[str, str] | tuple[str, str, str, str] | tuple[str, dict[str, Any]]]]


class _Child(TypedDict):
    run_id: str
    member: str
    value: str | None
    messages: list[dict[str, Any]]


class _Tool(_Step):
    error: NotRequired[_Error]
    pending: NotRequired[bool]
    execution: NotRequired[dict[str, Any]]
    duration: NotRequired[float]
    children: NotRequired[list[_Child]]


class _HookInput(TypedDict):
    value: Any
    messages: list[dict[str, Any]]


class _Hook(_Step):
    error: NotRequired[_Error]
    input: NotRequired[_HookInput]


_FILE = TypeAdapter(_File)
_STEP: TypeAdapter[Any] = TypeAdapter(_Step)
_KINDS: dict[str, TypeAdapter[Any]] = {
    "base": TypeAdapter(_Base),
    "prompt": TypeAdapter(_Prompt),
    "model": TypeAdapter(_Model),
    "broken_off": TypeAdapter(_Model),
    "tool": TypeAdapter(_Tool),
    "delegation": TypeAdapter(_Tool),
    "hook": TypeAdapter(_Hook),
}
_DAMAGE = (KernError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError)


def read_runs(path: Path) -> list[RecordedRun]:
    """Read the recorded runs from a file.

    Raises:
        UsageError: The file does not exist, is damaged, or has another version.
    """
    place = ""
    try:
        runs = _FILE.validate_json(path.read_bytes(), strict=True)["runs"]
        for at, run in enumerate(runs):
            for number, step in enumerate(run.steps):
                place = f"runs.{at}.steps.{number}"
                _check(step)
            place = f"runs.{at}.steps"
            _check_state(run.steps)
    except FileNotFoundError:
        raise UsageError(
            f"{path} does not exist; record it with cassette(path, 'record'), or with pytest's "
            "--kern-record=once"
        ) from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(filter(None, [place, *map(str, first["loc"])])) or "the file"
        raise _damaged(path, where, first["msg"]) from error
    except (OSError, *_DAMAGE) as error:
        raise _damaged(path, place or "the file", repr(error)) from error
    return runs


def _damaged(path: Path, where: str, why: str) -> UsageError:
    return UsageError(f"{path} is not a cassette of this version of Kern: {where}: {why}; record it again")


def write_runs(path: Path, runs: Sequence[RecordedRun]) -> None:
    """Write runs to a file, with the names of API keys in the environment instead of their values."""
    keys = EnvironmentKeys()
    written = [{name: value for name, value in asdict(run).items() if value is not None} for run in runs]
    for run, data in zip(runs, written, strict=True):
        data["input"], data["steps"] = run.input, [_in_whole_keys(step, keys) for step in run.steps]
    data = keys.masked({"kern_cassette": FORMAT, "runs": written})
    if keys.found:
        names = ", ".join(sorted(keys.found))
        log.warning("%s: the recording contained the value of %s; wrote the name instead", path, names)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f"{path.suffix}.tmp")
    temporary.write_bytes(json_bytes(data, indent=2) + b"\n")
    temporary.replace(path)


def _in_whole_keys(step: dict[str, Any], keys: EnvironmentKeys) -> dict[str, Any]:
    """The step with deltas joined where an API key is split between two, so that it can be masked."""
    pieces: dict[tuple[str, ...], str] = {}
    for verb, piece, *call in step.get("deltas", ()):
        if isinstance(piece, str):  # else it is not a part of a text
            pieces[verb, *call] = pieces.get((verb, *call), "") + piece
    whole = {place: text for place, text in pieces.items() if keys.masked(text) != text}
    if not whole:
        return step
    kept = [delta for delta in step["deltas"] if (delta[0], *delta[2:]) not in whole]
    return {**step, "deltas": [[verb, text, *call] for (verb, *call), text in whole.items()] + kept}


def _check(step: Mapping[str, Any]) -> None:
    """Check that a step can be read; raises one of `_DAMAGE` if not."""
    kind = _STEP.validate_python(step, strict=True)["kind"]
    if kind == CHANGE:
        change_from(Entry(step["key"], kind, json_bytes(step)))
    elif kind in _KINDS:
        _KINDS[kind].validate_python(step)
    if "error" in step:
        str(error_from(step["error"]))
    elif kind == "model":
        response_from(step)
    elif kind in ("tool", "delegation") and not step.get("pending"):
        outcome_from(step)
        step["execution"]
    holders = [*step.get("children", ())]
    if kind == "hook":
        holders.append(step.get("input"))
    elif kind == "prompt":
        holders.append(step["given"].get("history"))
    for holder in holders:
        if holder is not None:
            messages_from(holder)


def _check_state(steps: Sequence[Mapping[str, Any]]) -> None:
    """Check that the commits apply to the recorded state, and that prompts refer to existing commits."""
    tree: Any = None
    changes = 0
    for step in steps:
        if step["kind"] == "base":
            tree = decode(encode(step["state"])[0])
        elif step["kind"] == CHANGE:
            changes += 1
            tree = apply(tree, change_from(Entry(step["key"], CHANGE, json_bytes(step))).patch)
    if steps and not isinstance(tree, dict):
        raise ValueError("the session state at the beginning of the run is missing")
    commits = [step["given"].get("commits", 0) for step in steps if step["kind"] == "prompt"]
    if not all(isinstance(count, int) and 0 <= count <= changes for count in commits):
        raise ValueError(f"prompts refer to commits {commits}, but the run has only {changes}")
