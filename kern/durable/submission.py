"""Runs that are asked for in one process and done in another: what is handed over, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from pydantic_core import to_json

from kern._json import jsonable
from kern.db.journals import RunAbout, SubmittedRow
from kern.errors import StoreError, UsageError


@dataclass(slots=True, frozen=True, kw_only=True, config=ConfigDict(extra="ignore"))
class Submission:
    """A run that is asked for, and the terms that can be written down.

    Args:
        run_id: Its id.
        runner_id: The agent or team that is asked.
        session_id: Its session.
        input: What the model is asked: a text, or JSON.
        is_team: A team is asked.
        user_id: Whose session it is.
        session_state: Merged over the stored state.
        metadata: Noted on the run.
        dependencies: For templates and `run_context.dependencies`.
        timeout: Seconds that the run may take, from its first beginning.
    """

    run_id: str
    runner_id: str
    session_id: str
    input: str | list[Any] | dict[str, Any]
    is_team: bool = False
    user_id: str | None = None
    session_state: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    dependencies: dict[str, Any] | None = None
    timeout: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON data; what is None is left out."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def of(cls, **values: Any) -> Submission:
        """One that a program makes.

        Raises:
            UsageError: A value cannot be written down as JSON, or is not what its name takes.
        """
        try:
            return _adapter().validate_python({name: jsonable(value) for name, value in values.items()})
        except ValueError as error:
            raise UsageError(
                f"the run cannot be handed to another process, which gets it as JSON: {_short(error)}"
            ) from error

    @classmethod
    def from_dict(cls, data: Mapping[str, Any] | bytes) -> Submission:
        """One that was stored, or sent, as plain data or as JSON text.

        Raises:
            StoreError: It is damaged.
        """
        try:
            if isinstance(data, bytes):
                return _adapter().validate_json(data)
            return _adapter().validate_python(data)
        except ValidationError as error:
            raise StoreError(f"a submitted run cannot be read: {_short(error)}") from error

    def row(self) -> SubmittedRow:
        """As a database keeps it."""
        return SubmittedRow(
            run_id=self.run_id,
            about=RunAbout(
                session_id=self.session_id,
                user_id=self.user_id,
                runner_id=self.runner_id,
                is_team=self.is_team,
            ),
            request=to_json(self.to_dict()),
        )


@cache
def _adapter() -> TypeAdapter[Submission]:
    return TypeAdapter(Submission)


def _short(error: ValueError) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return str(error)
