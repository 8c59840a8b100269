"""What a paused run waits for: a person's word on one tool call."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from pydantic_core import from_json

from kern._json import finite, json_bytes
from kern.errors import UsageError
from kern.messages import check_types

Need = Literal["confirmation", "user_input", "external_execution", "in_doubt"]


class UserInputError(UsageError):
    """What a person has put in does not fit the tool. The run waits on: the person can be asked again.

    Args:
        message: What does not fit, and why.
        tool_call_id: The call that it was put in for.
        fields: The names of the values that do not fit.
    """

    def __init__(self, message: str, *, tool_call_id: str, fields: Sequence[str]) -> None:
        super().__init__(message)
        self.tool_call_id = tool_call_id
        self.fields: list[str] = list(fields)


@dataclass(slots=True, kw_only=True)
class RunRequirement:
    """One tool call that waits for a person. Resolve it, then call `continue_run`.

    Args:
        kind: What is needed: a word of consent, values that the model may not choose, or the call's
            result from somewhere else. "in_doubt": the process that made the call has died in it, and whether
            it was carried out is not known: `confirm` makes it again, `set_external_execution_result` says
            what it came to, and `reject` leaves it.
        run_id: The run whose call it is; a member's, where a member waits.
        agent_path: The names from the top-level run down to that one.
        tool_call_id: The model's id of the call.
        tool_name: The tool.
        tool_args: The arguments that the model chose. They are for people to read: whoever wants others
            rejects the call with a note that says so.
        user_input_schema: For "user_input": the JSON schema of the values that are asked for.
        confirmed: For "confirmation": the answer; None as long as there is none.
        note: What the model is told of a rejection.
        user_input: For "user_input": the values.
        result: For "external_execution": the text that the model is told.
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

    @property
    def needs_confirmation(self) -> bool:
        """It waits for `confirm` or `reject`."""
        return self.kind == "confirmation" and self.confirmed is None

    @property
    def is_in_doubt(self) -> bool:
        """It waits for `confirm`, `reject` or `set_external_execution_result`."""
        return self.kind == "in_doubt" and self.confirmed is None and self.result is None

    @property
    def needs_user_input(self) -> bool:
        """It waits for `provide_user_input`."""
        return self.kind == "user_input" and self.user_input is None and self.confirmed is None

    @property
    def needs_external_execution(self) -> bool:
        """It waits for `set_external_execution_result`."""
        return self.kind == "external_execution" and self.result is None and self.confirmed is None

    @property
    def is_resolved(self) -> bool:
        """The run can go on, as far as this call is concerned."""
        return not (
            self.needs_confirmation
            or self.needs_user_input
            or self.needs_external_execution
            or self.is_in_doubt
        )

    def confirm(self) -> None:
        """Let the call be made.

        Raises:
            UsageError: It waits for something else.
        """
        self._expect("confirm", "confirmation", "in_doubt")
        self.confirmed = True

    def reject(self, note: str | None = None) -> None:
        """Refuse the call, whatever it waits for; the model is told so, with the note."""
        self.confirmed = False
        self.note = note

    def provide_user_input(self, values: Mapping[str, Any]) -> None:
        """Give the values that the model may not choose.

        Raises:
            UsageError: It waits for something else, or a value is asked for and not given, or not asked for,
                or is no JSON. Whether the values fit the tool, `continue_run` sees.
        """
        self._expect("provide_user_input", "user_input")
        values = self._as_json(dict(values))
        schema = self.user_input_schema or {}
        asked = schema.get("properties", {})
        unknown = [name for name in values if asked and name not in asked]
        missing = [name for name in schema.get("required", ()) if name not in values]
        if unknown or missing:
            raise UsageError(
                f"{self.tool_name} asks for {', '.join(asked)}"
                + (f"; not given: {', '.join(missing)}" if missing else "")
                + (f"; not asked for: {', '.join(unknown)}" if unknown else "")
            )
        self.user_input = dict(values)

    def set_external_execution_result(self, result: str) -> None:
        """Give the result of the call, which was carried out elsewhere.

        Raises:
            UsageError: It waits for something else.
        """
        self._expect("set_external_execution_result", "external_execution", "in_doubt")
        self.result = result

    def take_answer(self, other: RunRequirement) -> None:
        """Copy the answer from another copy of this requirement; other fields are left alone.

        Raises:
            UsageError: The answer is not of the kind that this one waits for, or to another call.
        """
        if other.confirmed is not False and self._as_json(other.tool_args) != self._as_json(self.tool_args):
            raise UsageError(
                f"{self.tool_name}: tool_args of the requirement were changed, but the call is "
                "made with the arguments that the model chose. To have others used, reject it "
                "with a note that names them"
            )
        if other.confirmed is False:
            self.reject(other.note)
        elif other.confirmed:
            self.confirm()
        if other.user_input is not None:
            self.provide_user_input(other.user_input)
        if other.result is not None:
            self.set_external_execution_result(other.result)

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
        """As JSON, without what is not set."""
        return {f.name: finite(value) for f in fields(self) if (value := getattr(self, f.name)) is not None}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RunRequirement:
        """The reverse of `to_dict`.

        Raises:
            ValueError: A value is not of its type.
        """
        check_types(cls.__name__, data, _TYPES)
        if data["kind"] not in get_args(Need):
            raise ValueError(f"{cls.__name__}: kind must be one of {', '.join(get_args(Need))}")
        return cls(**data)


_TYPES: Mapping[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("kind", "run_id", "tool_call_id", "tool_name", "id"), str),
    **dict.fromkeys(("note", "result"), (str, type(None))),
    **dict.fromkeys(("user_input_schema", "user_input"), (dict, type(None))),
    "agent_path": list,
    "tool_args": dict,
    "confirmed": (bool, type(None)),
}
