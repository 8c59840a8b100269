"""Runs that one process submits and another one drives: the data that is handed over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any

import pydantic
from pydantic import ValidationError

from kern._json import exact, json_bytes, jsonable
from kern._sync.threads import threads
from kern.db.journals import RunAbout, SubmittedRow
from kern.errors import StoreError, UsageError
from kern.messages import MEDIA, Message


@dataclass(slots=True, frozen=True, kw_only=True)
class Submission:
    """A run to be driven by any process, with the options that can be written as JSON.

    Args:
        run_id: Its id.
        runner_id: The id of the agent or team.
        session_id: Its session.
        input: The input: a text, or JSON.
        messages: The input as messages, if it was given as one or several `Message`; with their media.
        media: The media of the input: lists under "images", "audio", "videos" and "files", with their bytes
            in base64.
        is_team: Whether a team runs.
        user_id: The owner of the session; None if it has none.
        session_state: Merged into the stored state, deeply.
        metadata: Stored with the run.
        dependencies: For templates and `run_context.dependencies`.
        output_schema: The JSON schema of the answer.
        timeout: The maximum duration in seconds, counted from the first time that the run begins.
        fingerprint: Identifies the input: the run id stands for this input alone.
    """

    run_id: str
    runner_id: str
    session_id: str
    input: str | list[Any] | dict[str, Any]
    messages: list[dict[str, Any]] | None = None
    media: dict[str, list[dict[str, Any]]] | None = None
    is_team: bool = False
    user_id: str | None = None
    session_state: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    dependencies: dict[str, Any] | None = None
    output_schema: dict[str, Any] | None = None
    timeout: float | None = None
    fingerprint: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The submission as plain JSON data. Fields that are None are left out."""
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: value for name, value in values if value is not None}

    @classmethod
    def of(cls, **values: Any) -> Submission:
        """Make a submission from a program's values.

        Raises:
            UsageError: A value cannot be written as JSON and read back as it was, or has the wrong type.
        """
        try:
            for name in ("session_state", "metadata", "dependencies"):
                if (given := values.get(name)) is not None:
                    exact(dict(given), None, name)
            made = _adapter().validate_python({name: jsonable(value) for name, value in values.items()})
            _adapter().validate_json(json_bytes(made.to_dict()))  # as the other process reads it
        except (ValueError, RecursionError) as error:
            raise UsageError(
                f"the run cannot be handed to another process, which gets it as JSON: {_short(error)}; "
                "pass plain values that are not nested deeper than 190 levels"
            ) from error
        return made

    @classmethod
    def from_dict(cls, data: Mapping[str, Any] | bytes) -> Submission:
        """Read a submission back from plain data, or from JSON text.

        Raises:
            StoreError: It is damaged.
        """
        try:
            if isinstance(data, bytes):
                return _adapter().validate_json(data)
            return _adapter().validate_python(data)
        except ValidationError as error:
            raise StoreError(f"a submitted run cannot be read: {_short(error)}") from error

    async def with_files(self) -> Submission:
        """The run with the bytes of the files that its media name: the other process may not have the files.

        Raises:
            UsageError: A file cannot be read.
        """
        messages, media = self.asked()
        items = [item for message in messages for item in message.media]
        items += [item for kind in media.values() for item in kind]
        if all(item.filepath is None for item in items):
            return self
        messages = await threads.run(lambda: [message.loaded() for message in messages])
        media = await threads.run(
            lambda: {name: [item.loaded() for item in kind] for name, kind in media.items()}
        )
        return replace(
            self,
            messages=[message.to_dict() for message in messages] or None,
            media={name: [item.to_dict() for item in kind] for name, kind in media.items()} or None,
        )

    def asked(self) -> tuple[list[Message], dict[str, list[Any]]]:
        """The messages and the media that came with the input.

        Raises:
            StoreError: They are damaged.
        """
        try:
            messages = [Message.from_dict(item) for item in self.messages or ()]
            media: dict[str, list[Any]] = {
                name: [MEDIA[name].from_dict(item) for item in items]
                for name, items in (self.media or {}).items()
            }
        except (ValueError, TypeError, LookupError, AttributeError, UsageError) as error:
            raise StoreError(f"the input of submitted run {self.run_id!r} cannot be read: {error}") from error
        return messages, media

    def row(self) -> SubmittedRow:
        """The row for the database."""
        return SubmittedRow(
            run_id=self.run_id,
            about=RunAbout(
                session_id=self.session_id,
                user_id=self.user_id,
                runner_id=self.runner_id,
                is_team=self.is_team,
            ),
            request=json_bytes(self.to_dict()),
        )


@cache
def _adapter() -> pydantic.TypeAdapter[Submission]:
    return pydantic.TypeAdapter(Submission)


def _short(error: ValueError | RecursionError) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return str(error)
