"""Random conversations over changing models and protocols: a server as strict as OpenAI refuses none."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from kern import Agent, tool
from kern.db.sqlite import SqliteDb
from kern.errors import ModelError, UsageLimitExceeded
from kern.messages import Image, ToolCall
from kern.models.openai import OpenAIChat, OpenAIResponses
from kern.testing import Answer, Fault, ModelServer, ReceivedRequest

ARGUMENTS = ('{"q": "x"}', "", "null", '{"q": ', "[1]", '{"q": NaN}', '"{}"', "{}")


def find(q: str = "nothing") -> list[Any]:
    """Find something."""
    return [f"found {q}", Image(content=q.encode(), mime_type="image/png")]


@tool(requires_confirmation=True)
def erase(q: str = "all") -> str:
    """Erase something."""
    return f"erased {q}"


def player(chance: random.Random) -> Any:
    """Plays a model that calls tools now and then, with odd ids and arguments, and fails at times."""

    def play(request: ReceivedRequest) -> Any:
        if chance.random() < 0.05:
            return Fault.status(400, message="refused on purpose")
        reasoning = chance.choice([None, "Hm."])
        text = chance.choice([None, "", "Let me see."])
        if len(request.tool_results) and chance.random() < 0.6:
            return Answer("Done.", reasoning=reasoning)
        calls = [
            ToolCall(
                chance.choice(["call_0", "", f"call_{chance.random()}", "c" * 50]),
                chance.choice(["find", "find", "erase", "unknown"]),
                chance.choice(ARGUMENTS),
            )
            for _ in range(chance.randrange(4))
        ]
        return Answer(text if calls else "Done.", tool_calls=calls, reasoning=reasoning)

    return play


@pytest.mark.parametrize("seed", range(12))
async def test_no_conversation_is_refused(
    tmp_path: Path, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    chance = random.Random(seed)
    refused: list[str] = []
    async with ModelServer(player(chance)) as server:
        where: dict[str, Any] = {"base_url": server.base_url, "api_key": "any", "max_retries": 0}
        models = [
            OpenAIChat("a", **where),
            OpenAIChat("b", **where),
            OpenAIResponses("a", **where),
            OpenAIResponses("b", store=True, **where),
            OpenAIResponses("gpt-4.1", **where),
        ]
        for number in range(14):
            agent = Agent(
                model=chance.choice(models),
                tools=[find, erase],
                db=SqliteDb(db_file=str(tmp_path / "kern.db")),
                session_id="s",
                add_history_to_context=True,
                num_history_runs=chance.randrange(1, 8),
                num_history_messages=chance.choice([None, None, 3, 6]),
                max_tool_calls_from_history=chance.choice([None, None, 0, 1, 3]),
                max_requests=8,
            )
            try:
                output = await agent.arun(f"Question {number}")
                while output.requirements:
                    for requirement in output.requirements:
                        requirement.confirm() if chance.random() < 0.5 else requirement.reject("no")
                    output = await agent.acontinue_run(output)
            except ModelError as error:
                if "refused on purpose" not in str(error):
                    refused.append(f"{number}: {error}")
            except UsageLimitExceeded:
                continue
    assert refused == []
    assert "asked again" not in caplog.text
    assert len(server.requests) > 14
