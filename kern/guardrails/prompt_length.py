"""A limit on the length of the input."""

from __future__ import annotations

from kern._error_text import counted
from kern._numbers import check_whole
from kern.errors import InputCheckError
from kern.guardrails.base import BaseGuardrail
from kern.runtime.request import RunInput


class PromptLengthGuardrail(BaseGuardrail):
    """Refuses an input that is too long, before any model is asked.

    Args:
        max_length: The most that the input may have, in characters, all its messages together.
    """

    def __init__(self, max_length: int) -> None:
        check_whole("max_length", max_length, 1)
        self.max_length = max_length

    def __call__(self, run_input: RunInput) -> None:
        """Refuse the input if it is too long."""
        length = sum(len(message.content or "") for message in run_input.messages)
        if length > self.max_length:
            raise InputCheckError(
                f"the input has {counted(length, 'characters')}; max_length is {self.max_length:,}"
            )
