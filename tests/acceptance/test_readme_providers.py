"""The README's program on shared state with other providers: one string is changed, `KERN_MODEL`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from kern.testing import Answer, ModelServer, ReceivedRequest, tool_call

ROOT = Path(__file__).resolve().parents[2]


def play(request: ReceivedRequest) -> Answer | str:
    if request.tool_results:
        return "All have counted."
    if "delegate_task_to_member" in request.tool_names:
        calls = [
            tool_call("delegate_task_to_member", member_id=f"member-{number}", task="Count")
            for number in range(1, 9)
        ]
        return Answer(tool_calls=calls)
    return Answer(tool_calls=[tool_call("count_up")])


@pytest.mark.parametrize(
    ("model", "address", "key"),
    [
        ("anthropic:claude-sonnet-4-5", "ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY"),
        ("google:gemini-3-pro-preview", "GOOGLE_GEMINI_BASE_URL", "GEMINI_API_KEY"),
        ("ollama:llama3.2", "OLLAMA_BASE_URL", ""),
    ],
)
def test_the_program_on_shared_state_runs_on_other_providers(model: str, address: str, key: str) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    program = next(block for block in blocks if "count_up" in block)
    with ModelServer(play) as server:
        more = {address: server.base_url, "KERN_MODEL": model} | ({key: "any"} if key else {})
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **more},
            capture_output=True,
            text=True,
            timeout=25,
            check=False,
        )
    assert (done.stdout, done.stderr, done.returncode) == ("{'count': 8}\n", "", 0)
