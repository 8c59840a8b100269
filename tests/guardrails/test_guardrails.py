"""The ready guardrails: what they find, what they leave alone, and what they never tell."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pydantic import BaseModel

from kern import Agent, Message, RunContext, UsageError
from kern.errors import InputCheckError, OutputCheckError
from kern.guardrails import BaseGuardrail, PIIDetectionGuardrail, PromptLengthGuardrail
from kern.runtime.request import RunInput
from kern.testing import ScriptedModel

FOUND: list[tuple[str, str]] = [
    ("write to ann.lee+shop@mail.example.co.uk, please", "email address"),
    ("ANN@EXAMPLE.COM", "email address"),
    ("<ann@example.com>", "email address"),
    ("my SSN is 123-45-6789.", "social security number"),
    ("123 45 6789", "social security number"),
    ("card 4111 1111 1111 1111, 12/30", "credit card number"),
    ("4111-1111-1111-1111", "credit card number"),
    ("378282246310005", "credit card number"),
    ("call +49 30 901820", "phone number"),
    ("call (555) 123-4567 now", "phone number"),
    ("555-123-4567", "phone number"),
    ("+1 555.123.4567", "phone number"),
]

LEFT_ALONE = [
    "",
    "a walk in the park",
    "at 10:30 on 2026-11-22",
    "@home, user@localhost, a @ b",
    "version 1.2.3.4 of 10.000 files",
    "order 123456, invoice 000-12-3456",
    "666-12-3456 and 900-12-3456 and 123-00-4567 are no SSNs",
    "4111 1111 1111 1112 fails its check digit",
    "12 of 34 for 5600 Euro",
    "the id f47ac10b-58cc-4372-a567-0e02b2c3d479",
    "pi is 3.141592653589793",
]


@pytest.mark.parametrize(("text", "kind"), FOUND)
async def test_personal_data_is_refused_and_never_repeated(text: str, kind: str) -> None:
    model = ScriptedModel([])
    with pytest.raises(InputCheckError) as caught:
        await Agent(model=model, pre_hooks=[PIIDetectionGuardrail()]).arun(text)
    assert str(caught.value) == f"the input contains personal data: {kind}"
    assert model.requests == []


@pytest.mark.parametrize("text", LEFT_ALONE)
def test_what_is_no_personal_data_is_left_alone(text: str) -> None:
    assert PIIDetectionGuardrail().masked(text) == (text, [])


@pytest.mark.parametrize(("text", "kind"), FOUND)
def test_a_kind_that_is_switched_off_is_not_looked_for(text: str, kind: str) -> None:
    nothing = PIIDetectionGuardrail(
        enable_ssn_check=False,
        enable_credit_card_check=False,
        enable_email_check=False,
        enable_phone_check=False,
    )
    assert nothing.masked(text) == (text, [])


async def test_personal_data_is_masked_before_the_model_and_the_database_see_it() -> None:
    model = ScriptedModel(["noted"])
    agent = Agent(model=model, pre_hooks=[PIIDetectionGuardrail(mask_pii=True)])
    output = await agent.arun("I am ann@example.com, 4111 1111 1111 1111")
    masked = "I am ***************, *******************"
    assert model.requests[0].messages[-1].content == masked
    assert output.input == masked
    assert "ann@" not in output.to_json()


async def test_every_message_of_the_input_is_checked() -> None:
    model = ScriptedModel(["noted"])
    agent = Agent(model=model, pre_hooks=[PIIDetectionGuardrail(mask_pii=True)])
    output = await agent.arun([Message("user", "ann@example.com"), Message("user", "that was me")])
    assert [message.content for message in model.requests[0].messages] == ["***************", "that was me"]
    assert "ann@" not in output.to_json()


async def test_patterns_of_ones_own() -> None:
    guardrail = PIIDetectionGuardrail(
        custom_patterns={"staff number": r"\bS-\d{4}\b", "city": re.compile("rome", re.IGNORECASE)}
    )
    assert guardrail.masked("S-1234 lives in Rome") == ("****** lives in ****", ["staff number", "city"])
    with pytest.raises(UsageError, match="staff number is not a valid regular expression"):
        PIIDetectionGuardrail(custom_patterns={"staff number": "("})


async def test_output_is_refused_or_masked_as_a_post_hook() -> None:
    answer = "her address is ann@example.com"
    refusing = Agent(model=ScriptedModel([answer]), post_hooks=[PIIDetectionGuardrail()])
    with pytest.raises(OutputCheckError, match="the output contains personal data: email address"):
        await refusing.arun("tell")
    masking = Agent(model=ScriptedModel([answer]), post_hooks=[PIIDetectionGuardrail(mask_pii=True)])
    output = await masking.arun("tell")
    assert output.content == "her address is ***************"
    assert "ann@" not in output.to_json()


async def test_structured_output_with_personal_data_is_refused_where_it_cannot_be_masked() -> None:
    class Person(BaseModel):
        email: str

    agent = Agent(
        model=ScriptedModel(['{"email": "ann@example.com"}']),
        output_schema=Person,
        post_hooks=[PIIDetectionGuardrail(mask_pii=True)],
    )
    with pytest.raises(OutputCheckError, match="cannot be masked"):
        await agent.arun("who")


def test_a_long_text_is_searched_in_reasonable_time() -> None:
    guardrail = PIIDetectionGuardrail()
    for text in (
        "1 " * 200_000,
        "a." * 200_000,
        "1-" * 200_000,
        "(" * 400_000,
        "a@" * 200_000,
        "+1" * 200_000,
    ):
        assert guardrail.masked(text) == (text, []), "the time limit of the test is the measure"


async def test_a_prompt_that_is_too_long_is_refused() -> None:
    model = ScriptedModel(["fine"])
    agent = Agent(model=model, pre_hooks=[PromptLengthGuardrail(5)])
    assert (await agent.arun("12345")).content == "fine"
    with pytest.raises(InputCheckError, match="has 6 characters; max_length is 5"):
        await agent.arun("123456")
    with pytest.raises(InputCheckError):
        await agent.arun([Message("user", "123"), Message("user", "456")])
    assert len(model.requests) == 1
    with pytest.raises(UsageError, match="max_length must be a whole number, 1 or more, not 0"):
        PromptLengthGuardrail(0)


@pytest.mark.parametrize("colour", ["sync", "async"])
async def test_a_guardrail_of_ones_own_is_a_hook_with_settings(colour: str) -> None:
    class Sync(BaseGuardrail):
        def __init__(self, word: str) -> None:
            self.word = word

        def __call__(self, run_input: RunInput, run_context: RunContext | None = None) -> None:
            assert run_context is not None
            run_context.session_state["checked"] = True
            if self.word in run_input.input_content:
                raise InputCheckError(f"no {self.word}, please")

    class Async(Sync):
        async def __call__(  # type: ignore[override]
            self, run_input: RunInput, run_context: RunContext | None = None
        ) -> None:
            Sync.__call__(self, run_input, run_context)

    guardrail: Any = Sync("shouting") if colour == "sync" else Async("shouting")
    agent = Agent(model=ScriptedModel(["fine"]), pre_hooks=[guardrail])
    assert (await agent.arun("hello")).session_state == {"checked": True}
    with pytest.raises(InputCheckError, match="no shouting, please"):
        await agent.arun("shouting", session_id="other")


def test_the_base_cannot_be_used_as_it_is() -> None:
    with pytest.raises(TypeError):
        BaseGuardrail()  # type: ignore[abstract]
