"""The part of the conformance suite of models about errors of a provider."""

# the name of a test says what it is for

from __future__ import annotations

import traceback
from typing import ClassVar

from kern.errors import (
    ModelAuthError,
    ModelBadRequestError,
    ModelError,
    ModelIncompleteError,
    ModelNotFoundError,
    ModelStatusError,
)
from kern.testing._db_rows import raises
from kern.testing._model_sink import Play, RecordingSink, ask
from kern.testing.answers import Answer, Fault

FAILURES: dict[int, type[ModelStatusError]] = {
    400: ModelBadRequestError,
    401: ModelAuthError,
    403: ModelAuthError,
    404: ModelNotFoundError,
    413: ModelBadRequestError,
    422: ModelBadRequestError,
}
"""The statuses of requests that would fail again, with the errors that they are."""


class ErrorConformance:
    """Tests of errors of a provider."""

    api_key: ClassVar[str]

    async def test_a_status_is_the_error_of_its_class_and_is_not_tried_again(self, play: Play) -> None:
        for status, kind in FAILURES.items():
            model = await play(Fault.status(status), "Hello")
            with raises(kind) as caught:
                await model.respond(ask("Hi"), RecordingSink())
            (error,) = caught
            assert isinstance(error, ModelError)
            assert (error.provider, error.model) == (model.provider, model.id)
            assert (await model.respond(ask("Hi"), RecordingSink())).message.content == "Hello", status

    async def test_errors_show_no_key(self, play: Play) -> None:
        message = f"Incorrect API key provided: {self.api_key}. The header was 'Bearer {self.api_key}'."
        faults = [Fault.status(401, message=message), Fault.status(400, body=message)]
        for fault in faults:
            model = await play(fault)
            with raises(ModelError) as caught:
                await model.respond(ask("Hi"), RecordingSink())
            shown = [*map(str, caught), *map(repr, caught), repr(vars(caught[0])), repr(model)]
            shown += traceback.format_exception(caught[0])
            assert self.api_key not in "\n".join(shown)

    async def test_an_answer_that_was_cut_at_a_limit_is_not_asked_for_again(self, play: Play) -> None:
        for stream in (False, True):
            model = await play(Answer("one two three", fault=Fault.incomplete(after=2)), "Hello")
            with raises(ModelIncompleteError):
                await model.respond(ask("Hi", stream=stream), RecordingSink())
            assert (await model.respond(ask("Hi"), RecordingSink())).message.content == "Hello"

    async def test_an_answer_that_broke_off_is_no_answer(self, play: Play) -> None:
        model = await play(*[Answer("one two three", fault=Fault.cut(after=2, clean=True))] * 8)
        with raises(ModelError):
            await model.respond(ask("Hi", stream=True), RecordingSink())
