"""What the README shows is run here, block by block, against a real HTTP server on loopback."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from kern.models import _switch as switch
from kern.testing import Answer, Fault, ModelServer, ReceivedRequest, tool_call

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
PROGRAMS = [text for language, text in BLOCKS if language == "python"]
COMMANDS = [text.strip() for language, text in BLOCKS if language == "sh"]


def titles() -> list[str]:
    """Each program's number and the section that it stands in."""
    found, section = [], ""
    for line in README.splitlines():
        if line.startswith("#") and not line.startswith("# "):
            section = line.strip("# ")
        if line == "```python":
            found.append(f"{len(found) + 1} {section}")
    return found


def play(request: ReceivedRequest) -> Answer | str | Fault:
    """A model that lets all members work, uses each tool once, and then answers."""
    if request.model == "no-such-model":
        return Fault.status(404, message="The model does not exist", code="model_not_found")
    if request.tool_results:
        return "Done."
    if "delegate_task_to_member" in request.tool_names:
        members = re.findall(r'<member id="([^"]+)"', request.system_text)
        calls = [tool_call("delegate_task_to_member", member_id=member, task="Go") for member in members]
        return Answer(tool_calls=calls)
    return (
        Answer(tool_calls=[tool_call(name) for name in request.tool_names]) if request.tool_names else "Done."
    )


def programs(marker: str) -> list[Any]:
    """The programs that hold `marker`."""
    return [
        pytest.param(text, id=title)
        for text, title in zip(PROGRAMS, titles(), strict=True)
        if re.search(marker, text, re.MULTILINE)
    ]


@pytest.mark.parametrize("program", programs(""))
def test_program_runs_and_prints_what_it_says(program: str, tmp_path: Path) -> None:
    with ModelServer(play) as server:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", program],
            cwd=tmp_path,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(ROOT),
                "OPENAI_BASE_URL": server.base_url,
                "OPENAI_API_KEY": "sk-any",
            },
            capture_output=True,
            text=True,
            timeout=25,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    expected = re.findall(r"^\s*print\(.*\)  # (.+)$", program, re.MULTILINE)
    assert [line for line in done.stdout.splitlines() if line in expected] == expected
    if ".print_response(" in program or (".arun(" in program and "asyncio.run" in program):
        assert "Done." in done.stdout


OTHERS = {
    "google:gemini-3-pro": ("GOOGLE_GEMINI_BASE_URL", "GEMINI_API_KEY"),
    "anthropic:claude-sonnet-4-5": ("ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY"),
    "ollama:llama3.2": ("OLLAMA_BASE_URL", "OLLAMA_API_KEY"),
}
"""Other providers than the usual one, each with the variables of its address and its key."""


@pytest.mark.parametrize("model", OTHERS, ids=lambda model: model.partition(":")[0])
@pytest.mark.parametrize("program", programs("^async def count_up"))
def test_shared_state_works_with_another_provider_by_one_string(
    program: str, model: str, tmp_path: Path
) -> None:
    with ModelServer(play) as server:
        address, key = OTHERS[model]
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", program],
            cwd=tmp_path,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(ROOT),
                "KERN_MODEL": model,
                address: server.base_url,
                key: "any",
            },
            capture_output=True,
            text=True,
            timeout=25,
            check=False,
        )
        protocols = {request.protocol for request in server.requests}
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.findall(r"^\s*print\(.*\)  # (.+)$", program, re.MULTILINE) == done.stdout.split("\n")[:-1]
    assert len(protocols) == 1
    assert "responses" not in protocols


@pytest.mark.parametrize("program", programs("^async def test_"))
async def test_tests_of_a_program_pass(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    names: dict[str, Any] = {}
    with monkeypatch.context() as patch:
        patch.setattr(switch, "_forbidden", 0)  # a ban that the program does not lift ends here
        exec(program, names)
        for function in [value for name, value in names.items() if name.startswith("test_")]:
            await function()


def test_commands_are_the_two_that_set_themselves_up() -> None:
    assert COMMANDS == ["pip install -q uv && uv run kern demo", "pip install -q uv && uv run pytest"]


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)", README)
    assert links
    assert [link for link in links if not link.startswith("http") and not (ROOT / link).exists()] == []


def test_what_is_said_of_dependencies_is_what_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    core = {re.match(r"[\w-]+", entry)[0] for entry in project["dependencies"]}
    (said,) = re.findall(r"The core needs ([^;]+);", README)
    assert set(re.findall(r"[\w-]+", said)) - {"and", "on", "Windows"} == core
    (extras,) = re.findall(r"the extras are\s+([^.]+)\.", README)
    named = set(re.findall(r"`([\w-]+)`", extras))
    assert named
    assert named - set(project["optional-dependencies"]) == set()
