"""What a paused run waits for: a person's decision on a tool call."""

from __future__ import annotations

import reprlib
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from pydantic_core import from_json

from kern._json import exact, finite, json_bytes, read_back, value_text
from kern.errors import UsageError
from kern.messages import check_types, readable

Need = Literal["confirmation", "user_input", "external_execution", "in_doubt"]


class UserInputError(UsageError):
    """The values that a person entered do not fit the tool. The run stays paused, so you can ask again.

    Args:
        message: What does not fit, and why.
        tool_call_id: The call that the values were entered for.
        fields: The names of the values that do not fit.
    """

    def __init__(self, message: str, *, tool_call_id: str, fields: Sequence[str]) -> None:
        super().__init__(message)
        self.tool_call_id = tool_call_id
        self.fields: list[str] = list(fields)


@dataclass(slots=True, kw_only=True)
class RunRequirement:
    """A tool call that waits for a person. Resolve it, then call `continue_run`.

    Args:
        kind: What is needed. "confirmation": consent to the call. "user_input": values that the model may not
            choose. "external_execution": the result of the call, which is carried out elsewhere. "in_doubt":
            the process that made the call died during it, so it is not known whether the call was carried
            out; `confirm` makes it again, `set_external_execution_result` gives its result, `reject` skips
            it.
        run_id: The run that made the call; for a member's call the member's run.
        agent_path: The names from the top-level run down to that run.
        tool_call_id: The model's id of the call.
        tool_name: The tool.
        tool_args: The arguments that the model chose, for people to read. Changing them has no effect; to get
            other arguments, reject the call with a note that says so.
        user_input_schema: For "user_input": the JSON schema of the values.
        id: Identifies this requirement.
        confirmed: For "confirmation": the decision; None until it is made.
        note: For a rejected call: a note to the model.
        user_input: For "user_input": the values. A later question about the same call repeats them.
        result: For "external_execution": the text that the model gets as the result.
    """

    kind: Need
    run_id: str
    agent_path: list[str]
    tool_call_id: str
    tool_name: str
    tool_args: dict[str, Any]
    user_input_schema: dict[str, Any] | None = None
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    confirmed: bool | None = None
    note: str | None = None
    user_input: dict[str, Any] | None = None
    result: str | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        """Set a field. `confirmed` takes only True, False and None: "no" must not count as consent.

        Raises:
            UsageError: `confirmed` is something else.
        """
        if name == "confirmed" and not (value is None or isinstance(value, bool)):
            raise UsageError(
                f"confirmed must be True, False or None, not {value!r}; call confirm() or reject(note)"
            )
        object.__setattr__(self, name, value)

    @property
    def needs_confirmation(self) -> bool:
        """Whether it waits for `confirm` or `reject`."""
        return self.kind == "confirmation" and self.confirmed is None

    @property
    def is_in_doubt(self) -> bool:
        """Whether it waits for `confirm`, `reject` or `set_external_execution_result`."""
        return self.kind == "in_doubt" and self.confirmed is None and self.result is None

    @property
    def needs_user_input(self) -> bool:
        """Whether it waits for `provide_user_input`."""
        return self.kind == "user_input" and self.user_input is None and self.confirmed is None

    @property
    def needs_external_execution(self) -> bool:
        """Whether it waits for `set_external_execution_result`."""
        return self.kind == "external_execution" and self.result is None and self.confirmed is None

    @property
    def is_resolved(self) -> bool:
        """Whether it has its answer. A run continues once all its requirements have theirs."""
        return not (
            self.needs_confirmation
            or self.needs_user_input
            or self.needs_external_execution
            or self.is_in_doubt
        )

    def confirm(self) -> None:
        """Allow the call.

        Raises:
            UsageError: It waits for something else.
        """
        self._expect("confirm", "confirmation", "in_doubt")
        self.confirmed = True

    def reject(self, note: str | None = None) -> None:
        """Refuse the call, whatever it waits for. The model gets an error text with the note."""
        self.confirmed = False
        self.note = note

    def provide_user_input(self, values: Mapping[str, Any]) -> None:
        """Give the values that the model may not choose.

        Raises:
            UserInputError: A value is missing, unknown or not JSON. A value of another type, such as a date
                or a model, must be equal after it was written as JSON and read. `continue_run` checks whether
                the values fit the tool.
            UsageError: It waits for something else.
        """
        self._expect("provide_user_input", "user_input")
        schema = self.user_input_schema or {}
        asked = schema.get("properties", {})
        if not isinstance(values, Mapping):
            raise self._misfit(
                f"{self.tool_name}: the values must be a dict by name, not {reprlib.repr(values)}", asked
            )
        try:
            values = self._as_json(exact(dict(values), read_back))
        except (ValueError, RecursionError, UsageError) as error:
            why = "they are nested too deeply" if isinstance(error, RecursionError) else error
            raise self._misfit(
                f"{self.tool_name}: the values cannot be written as JSON: {why}; "
                "pass plain data: text, numbers, lists and dicts",
                values,
            ) from None
        unknown = [name for name in values if asked and name not in asked]
        missing = [name for name in schema.get("required", ()) if name not in values]
        if unknown or missing:
            raise self._misfit(
                f"{self.tool_name} asks for {', '.join(asked)}"
                + (f"; missing: {', '.join(missing)}" if missing else "")
                + (f"; unknown: {', '.join(map(str, unknown))}" if unknown else ""),
                [*missing, *unknown],
            )
        self.user_input = dict(values)

    def set_external_execution_result(self, result: object) -> None:
        """Give the result of a call that was carried out elsewhere.

        Args:
            result: The result. The model reads a value that is no text as if the tool had returned it: a dict
                as JSON, None as an empty text.

        Raises:
            UsageError: It waits for something else.
        """
        self._expect("set_external_execution_result", "external_execution", "in_doubt")
        self.result = value_text(result)

    def take_answer(self, other: RunRequirement) -> None:
        """Copy the answer from another copy of this requirement; other fields are left alone.

        Raises:
            UsageError: The answer is of another kind than this requirement waits for, or a field differs that
                says which call it is about.
        """
        if other.confirmed is not False:
            self._check_same_call(other)
        if other.confirmed is False:
            self.reject(other.note)
        elif other.confirmed:
            self.confirm()
        if other.user_input is not None and other.user_input != self.user_input:
            self.provide_user_input(other.user_input)
        if other.result is not None:
            self.set_external_execution_result(other.result)

    def _check_same_call(self, other: RunRequirement) -> None:
        for name in _OF_THE_CALL:
            if (given := getattr(other, name)) != (known := getattr(self, name)):
                raise UsageError(
                    f"{self.tool_name}: {name} of the requirement was changed, from {known!r} to {given!r}; "
                    "answer the requirement as the run's output has it"
                )
        if self._as_json(other.tool_args) != self._as_json(self.tool_args):
            raise UsageError(
                f"{self.tool_name}: tool_args of the requirement were changed, but the call is made with the "
                "arguments that the model chose; for other arguments, reject it with a note that names them"
            )

    def _misfit(self, message: str, names: Iterable[Any]) -> UserInputError:
        return UserInputError(message, tool_call_id=self.tool_call_id, fields=[str(name) for name in names])

    def _as_json(self, values: Mapping[str, Any]) -> dict[str, Any]:
        try:
            plain: dict[str, Any] = from_json(json_bytes(values))
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{self.tool_name}: the values cannot be written as JSON: {error}") from None
        return plain

    def _expect(self, verb: str, *kinds: Need) -> None:
        if self.kind not in kinds:
            raise UsageError(f"{self.tool_name} waits for {self.kind}, so {verb}() does not apply to it")

    def to_dict(self) -> dict[str, Any]:
        """The requirement as JSON. Fields that are None are left out."""
        data = {f.name: finite(value) for f in fields(self) if (value := getattr(self, f.name)) is not None}
        return readable("RunRequirement", data, _TYPES)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RunRequirement:
        """Read a requirement back from what `to_dict` wrote.

        Raises:
            ValueError: A value has the wrong type, or the kind is unknown.
            KeyError: The kind is missing.
            TypeError: Another required value is missing, or a field is unknown.
        """
        check_types(cls.__name__, data, _TYPES)
        if data["kind"] not in get_args(Need):
            raise ValueError(f"{cls.__name__}: kind must be one of {', '.join(get_args(Need))}")
        return cls(**data)


_OF_THE_CALL = ("kind", "run_id", "agent_path", "tool_call_id", "tool_name")

_TYPES: Mapping[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("kind", "run_id", "tool_call_id", "tool_name", "id"), str),
    **dict.fromkeys(("note", "result"), (str, type(None))),
    **dict.fromkeys(("user_input_schema", "user_input"), (dict, type(None))),
    "agent_path": list,
    "tool_args": dict,
    "confirmed": (bool, type(None)),
}
