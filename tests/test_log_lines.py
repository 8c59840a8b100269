"""What is quoted in the log, or is a provider's error text, can forge no line and command no terminal."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kern import Agent, KernError
from kern._log import one_line
from kern.messages import ToolCall
from kern.models.base import ModelResponse
from kern.models.openai import OpenAIChat
from kern.runtime.debug import _StandardError
from kern.testing import Fault, ModelServer, ScriptedModel
from tests.logs import kern_messages

EVIL = "x\x1b]0;owned\x07\x1b[31m\nERROR kern: all is lost\r\u2028WARNING kern: forged\u202e\x9b2J"
FORGED = re.compile(r"^(?:ERROR kern: all is lost|WARNING kern: forged)", re.MULTILINE)

CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e]")


def is_harmless(text: str) -> bool:
    return CONTROL.search(text) is None and FORGED.search(text) is None


@pytest.fixture
def standard_error(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[], str]]:
    """What debug mode has written."""
    handler = _StandardError()
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    logging.getLogger("kern").addHandler(handler)
    yield lambda: capsys.readouterr().err
    logging.getLogger("kern").removeHandler(handler)


def tool(text: str) -> str:
    """Say it."""
    return text


async def test_debug_mode_quotes_what_models_tools_and_people_say(standard_error: Callable[[], str]) -> None:
    calls = [ToolCall("c\x1b[2J", "tool", '{"text": "x\x1b[31m"}'), ToolCall("d", EVIL, "{}")]
    agent = Agent(
        name=EVIL,
        model=ScriptedModel([ModelResponse.of(EVIL, *calls), EVIL]),
        tools=[tool],
        debug_mode=True,
        debug_level=2,
    )
    await agent.arun(EVIL, session_id="s\nERROR kern: all is lost", user_id=EVIL)
    written = standard_error()
    assert written
    assert is_harmless(written)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_provider_s_error_text_is_one_line_wherever_it_is_shown(
    standard_error: Callable[[], str], stream: bool
) -> None:
    async with ModelServer([Fault.status(400, message=EVIL, code=EVIL)]) as server:
        model = OpenAIChat(id="m", api_key="sk-any", base_url=server.base_url)
        agent = Agent(model=model, debug_mode=True)
        with pytest.raises(KernError) as raised:
            await agent.aprint_response("Hi", stream=stream)
    error = raised.value
    assert is_harmless(standard_error())
    for text in (str(error), repr(error), str(getattr(error, "code", ""))):
        assert is_harmless(text)
        assert "\n" not in text
    assert r"\nERROR kern" in str(error), "nothing is lost: it is shown as an escape"


@pytest.mark.parametrize("name", ["kern", "kern.models"])
def test_every_handler_of_the_application_s_gets_harmless_lines(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    logger = logging.getLogger(name)
    with caplog.at_level(logging.INFO, name):
        logger.warning("run %s: %r after %d and %.1f", EVIL, [EVIL], 3, 0.25)
        logger.warning("%(what)s", {"what": EVIL})
        logger.error("failed: %s", ValueError(EVIL))
    assert len(kern_messages(caplog)) == 3
    assert all(is_harmless(message) and "\n" not in message for message in caplog.messages)
    assert "after 3 and 0.2" in kern_messages(caplog)[0]
    assert caplog.records[0].msg == "run %s: %r after %d and %.1f", "reporters group by it"


def test_a_traceback_s_lines_cannot_pass_for_messages(standard_error: Callable[[], str]) -> None:
    try:
        raise ValueError(EVIL)
    except ValueError:
        logging.getLogger("kern").exception("it failed")
    written = standard_error()
    assert "Traceback" in written
    assert is_harmless(written)


def test_every_logger_is_a_careful_one() -> None:
    kern = Path(__file__).resolve().parents[1] / "kern"
    users = [path.name for path in kern.rglob("*.py") if "getLogger(" in path.read_text(encoding="utf-8")]
    assert users == ["_log.py"]


def test_ordinary_text_stays_as_it_is() -> None:
    assert one_line("Grüße 日本 \U0001f600 \t".rstrip("\t")) == "Grüße 日本 \U0001f600 "
