"""Personal data in the input or the output, found by patterns: refused, or masked."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from kern.errors import InputCheckError, OutputCheckError, UsageError
from kern.guardrails.base import BaseGuardrail
from kern.run.output import AnyRunOutput
from kern.runtime.request import RunInput

_CREDIT_CARD = re.compile(r"(?<![\w-])\d(?:[ -]?\d){12,18}(?![\w-])")
_SSN = re.compile(r"(?<![\w-])(?!000|666|9\d\d)\d{3}([- ])(?!00)\d{2}\1(?!0000)\d{4}(?![\w-])")
_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![\w-])")
_PHONE = re.compile(
    r"(?<![\w+])(?<!\d[ .-])(?!\d{4}-\d\d-\d\d\b)"
    r"(?:\+\d{1,3}[ .-]?)?(?:\(\d{1,5}\)[ .-]?)?\d{1,5}(?:[ .-]?\d{2,5}){1,5}(?![ .-]?\d)(?!\w)"
)


def _passes_luhn(number: str) -> bool:
    """The check digit of card numbers: https://en.wikipedia.org/wiki/Luhn_algorithm"""
    digits = [int(character) for character in reversed(number) if character.isdigit()]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[1::2]]
    return (sum(digits[::2]) + sum(doubled)) % 10 == 0


def _is_phone(number: str) -> bool:
    digits = sum(character.isdigit() for character in number)
    return (8 if number.startswith("+") else 10) <= digits <= 15


def _always(_: str) -> bool:
    return True


class PIIDetectionGuardrail(BaseGuardrail):
    """Refuses or masks personal data: in `pre_hooks` that of the input, in `post_hooks` that of the output.

    Patterns find what looks like personal data, and no more than that. What the model has streamed is out
    before the output is checked. The errors name the kinds that were found, never the data.

    Args:
        mask_pii: Put asterisks in its place, and let the run go on.
        enable_ssn_check: Look for US social security numbers.
        enable_credit_card_check: Look for card numbers, those whose check digit is right.
        enable_email_check: Look for email addresses.
        enable_phone_check: Look for phone numbers.
        custom_patterns: More to look for: regular expressions by the name of what they find.
    """

    def __init__(
        self,
        *,
        mask_pii: bool = False,
        enable_ssn_check: bool = True,
        enable_credit_card_check: bool = True,
        enable_email_check: bool = True,
        enable_phone_check: bool = True,
        custom_patterns: Mapping[str, str | re.Pattern[str]] | None = None,
    ) -> None:
        self.mask_pii = mask_pii
        self._kinds: dict[str, tuple[re.Pattern[str], Callable[[str], bool]]] = {}
        if enable_email_check:
            self._kinds["email address"] = (_EMAIL, _always)
        if enable_credit_card_check:
            self._kinds["credit card number"] = (_CREDIT_CARD, _passes_luhn)
        if enable_ssn_check:
            self._kinds["social security number"] = (_SSN, _always)
        if enable_phone_check:
            self._kinds["phone number"] = (_PHONE, _is_phone)
        for name, pattern in (custom_patterns or {}).items():
            try:
                self._kinds[name] = (re.compile(pattern), _always)
            except re.error as error:
                raise UsageError(
                    f"custom_patterns: {name} is not a valid regular expression: {error}"
                ) from error

    def __call__(self, run_input: RunInput, run_output: AnyRunOutput | None = None) -> None:
        """Check the input, or the output once there is one."""
        if run_output is None:
            self._check_input(run_input)
        else:
            self._check_output(run_output)

    def masked(self, text: str) -> tuple[str, list[str]]:
        """The text with asterisks in the place of personal data, and the kinds that were found."""
        found: list[str] = []
        for name, (pattern, counts) in self._kinds.items():
            text, number = _masked(text, pattern, counts)
            if number:
                found.append(name)
        return text, found

    def _check_input(self, run_input: RunInput) -> None:
        results = [self.masked(message.content or "") for message in run_input.messages]
        found = dict.fromkeys(kind for _, kinds in results for kind in kinds)
        if not found:
            return
        if not self.mask_pii:
            raise InputCheckError(f"the input contains personal data: {', '.join(found)}")
        for at, (text, _) in enumerate(results):
            if run_input.messages[at].content:
                run_input.messages[at] = replace(run_input.messages[at], content=text)
        run_input.input_content = results[-1][0]

    def _check_output(self, output: AnyRunOutput) -> None:
        text, found = self.masked(output.get_content_as_string())
        if not found:
            return
        if not self.mask_pii:
            raise OutputCheckError(f"the output contains personal data: {', '.join(found)}")
        if not isinstance(output.content, str):
            raise OutputCheckError(
                f"the structured output contains personal data and cannot be masked: {', '.join(found)}"
            )
        output.content = text


def _masked(text: str, pattern: re.Pattern[str], counts: Callable[[str], bool]) -> tuple[str, int]:
    pieces: list[str] = []
    end = 0
    for start, stop in _spans(text, pattern, counts):
        pieces += (text[end:start], "*" * (stop - start))
        end = stop
    return "".join([*pieces, text[end:]]), len(pieces) // 2


def _spans(text: str, pattern: re.Pattern[str], counts: Callable[[str], bool]) -> Iterator[tuple[int, int]]:
    for match in pattern.finditer(text):
        if match[0] and counts(match[0]):
            yield match.span()
