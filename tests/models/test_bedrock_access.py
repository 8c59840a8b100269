"""Who asks Bedrock, and where: keys, sessions, botocore's chain, the region, signatures, and paths."""

from __future__ import annotations

import asyncio
import copy
import json
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("botocore", reason="the extra bedrock is not installed")

from botocore.credentials import Credentials, RefreshableCredentials
from botocore.session import Session

from kern import Agent
from kern.errors import MissingKeyError, ModelError, UsageError
from kern.messages import Message
from kern.models.base import ModelRequest
from kern.models.bedrock import BedrockConverse
from kern.models.resolve import resolve
from tests.models.bedrock_wire import FRAMES, KEYS, SECRETS, frame, signature_of
from tests.models.raw_server import Wire, raw_server
from tests.models.replay import ReplayServer, Reply, Sink
from tests.models.test_keys_in_tracebacks import reported

ASK = ModelRequest([Message("user", "Grüße")])
STREAM = ModelRequest([Message("user", "Grüße")], stream=True)
WHOLE = Reply(
    [
        json.dumps(
            {
                "output": {"message": {"role": "assistant", "content": [{"text": "ok"}]}},
                "stopReason": "end_turn",
                "usage": {"inputTokens": 1, "outputTokens": 1, "totalTokens": 2},
            }
        ).encode()
    ],
    content_type="application/json",
)
STREAMED = Reply(
    [
        frame("messageStart", role="assistant"),
        frame("contentBlockDelta", contentBlockIndex=0, delta={"text": "ok"}),
        frame("messageStop", stopReason="end_turn"),
        frame("metadata", usage={"inputTokens": 1, "outputTokens": 1, "totalTokens": 2}),
    ],
    content_type=FRAMES,
)
ARN = "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-haiku-4-5-20251001-v1:0"
PROFILE = """[profile work]
region = eu-west-3
aws_access_key_id = AKIDOFTHEPROFILE01
aws_secret_access_key = TheSecretOfTheProfile/0123456789
"""


@pytest.fixture(autouse=True)
def nothing_around(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No credentials of the machine's own, and no network is asked for any."""
    for name in (
        *("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_BEARER_TOKEN_BEDROCK", "AWS_ACCESS_KEY_ID"),
        *("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_BEDROCK_RUNTIME"),
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


def model(server: ReplayServer, id: str = "amazon.nova-lite-v1:0", **settings: Any) -> BedrockConverse:
    settings = {"max_retries": 0, **settings}
    return BedrockConverse(id, base_url=server.url.removesuffix("/v1"), **settings)


def raw_of(body: Any) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    ("id", "path"),
    [
        ("amazon.nova-lite-v1:0", "amazon.nova-lite-v1%3A0"),
        (ARN, ARN.replace(":", "%3A").replace("/", "%2F")),
        ("ü d%2F", "%C3%BC%20d%252F"),
    ],
)
@pytest.mark.parametrize("request_", [ASK, STREAM], ids=["whole", "stream"])
async def test_an_id_is_one_part_of_the_path_and_the_signature_is_of_what_was_sent(
    server: ReplayServer, sink: Sink, id: str, path: str, request_: ModelRequest
) -> None:
    """The signature is computed here from what has arrived, without botocore."""
    server.replies = [STREAMED if request_.stream else WHOLE]
    answer = await model(server, id, **KEYS).respond(request_, sink)
    assert answer.message.content == "ok"
    (asked,) = server.asked
    assert asked.path == f"/model/{path}/{'converse-stream' if request_.stream else 'converse'}"
    assert asked.headers["authorization"] == signature_of(asked, raw_of(asked.body))
    assert asked.headers["x-amz-security-token"] == KEYS["aws_session_token"]
    assert asked.headers["accept"] == (FRAMES if request_.stream else "application/json")


async def test_the_signature_is_the_one_that_botocores_own_signer_makes(
    server: ReplayServer, sink: Sink
) -> None:
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest

    server.replies = [WHOLE]
    await model(server, ARN, **KEYS).respond(ASK, sink)
    (asked,) = server.asked
    url = f"http://{asked.headers['host']}{asked.path}"
    request = AWSRequest("POST", url, {"content-type": "application/json"}, raw_of(asked.body))
    signer = SigV4Auth(Credentials(*SECRETS), "bedrock", "us-east-1")
    request.context["timestamp"] = asked.headers["x-amz-date"]
    request.headers["X-Amz-Date"] = asked.headers["x-amz-date"]
    request.headers["X-Amz-Security-Token"] = asked.headers["x-amz-security-token"]
    signature = signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
    assert asked.headers["authorization"].endswith(f"Signature={signature}")


async def test_a_repeated_request_is_signed_again(
    server: ReplayServer, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datetime import UTC, datetime

    from kern.models.bedrock import _access

    times = iter(datetime(2026, 11, 28, 12, 0, second, tzinfo=UTC) for second in (1, 2, 3))

    class Clock:
        @staticmethod
        def now(zone: Any) -> datetime:
            return next(times)

    monkeypatch.setattr(_access, "datetime", Clock)
    server.replies = [Reply([b"{}"], 503, content_type="application/json"), WHOLE]
    await model(server, max_retries=1, **KEYS).respond(ASK, sink)
    dates = [asked.headers["x-amz-date"] for asked in server.asked]
    assert dates == ["20261128T120001Z", "20261128T120002Z"]
    for asked in server.asked:
        assert asked.headers["authorization"] == signature_of(asked, raw_of(asked.body))


@pytest.mark.parametrize("how", ["argument", "variable"])
async def test_an_api_key_goes_as_it_is_and_nothing_is_signed(
    server: ReplayServer, sink: Sink, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    server.replies = [WHOLE]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    if how == "variable":
        monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "bedrock-api-key-abc")
    key = {"api_key": "bedrock-api-key-abc"} if how == "argument" else {}
    await model(server, **key).respond(ASK, sink)
    (asked,) = server.asked
    assert asked.headers["authorization"] == "Bearer bedrock-api-key-abc"
    assert not [name for name in asked.headers if name.startswith("x-amz")]


async def test_given_keys_go_before_the_variable_of_an_api_key(
    server: ReplayServer, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.replies = [WHOLE]
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "bedrock-api-key-abc")
    await model(server, **KEYS).respond(ASK, sink)
    assert server.asked[0].headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE")


async def test_the_chain_of_botocore_finds_variables_and_profiles(
    server: ReplayServer, sink: Sink, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "config").write_text(PROFILE, encoding="utf-8")
    server.replies = [WHOLE]
    monkeypatch.setenv("AWS_PROFILE", "work")
    await model(server).respond(ASK, sink)
    assert "Credential=AKIDOFTHEPROFILE01/" in server.asked[0].headers["authorization"]
    assert "/eu-west-3/bedrock/" in server.asked[0].headers["authorization"]
    monkeypatch.delenv("AWS_PROFILE")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDOFTHEVARIABLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-west-2")
    await model(server).respond(ASK, sink)
    assert "Credential=AKIDOFTHEVARIABLE/" in server.asked[1].headers["authorization"]
    assert "/us-west-2/bedrock/" in server.asked[1].headers["authorization"]
    monkeypatch.setenv("AWS_REGION", "sa-east-1")
    await model(server).respond(ASK, sink)
    assert "/sa-east-1/bedrock/" in server.asked[2].headers["authorization"]
    await model(server, region="us-east-2").respond(ASK, sink)
    assert "/us-east-2/bedrock/" in server.asked[3].headers["authorization"]


async def test_each_request_of_a_model_finds_the_region_in_the_environment(
    server: ReplayServer, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDOFTHEVARIABLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_REGION", "sa-east-1")
    server.replies = [WHOLE, WHOLE, WHOLE]
    asked = model(server)
    for _ in range(3):
        await asked.respond(ASK, sink)
    assert all("/sa-east-1/bedrock/" in each.headers["authorization"] for each in server.asked)


async def test_a_session_signs_and_tells_the_region(server: ReplayServer, sink: Sink, tmp_path: Path) -> None:
    (tmp_path / "config").write_text(PROFILE, encoding="utf-8")
    server.replies = [WHOLE]
    await model(server, aws_session=Session(profile="work")).respond(ASK, sink)
    assert "Credential=AKIDOFTHEPROFILE01/" in server.asked[0].headers["authorization"]
    assert "/eu-west-3/bedrock/" in server.asked[0].headers["authorization"]


class Boto3Like:
    """A session of boto3's, as far as Kern needs it."""

    region_name = "ca-central-1"

    def __init__(self, credentials: Any) -> None:
        self.credentials = credentials
        self.threads: list[str] = []

    def get_credentials(self) -> Any:
        self.threads.append(threading.current_thread().name)
        return self.credentials


async def test_temporary_credentials_are_renewed_in_a_thread_while_the_loop_goes_on(
    server: ReplayServer, sink: Sink
) -> None:
    from datetime import UTC, datetime, timedelta

    renewed: list[str] = []
    went_on = threading.Event()

    def renew() -> dict[str, str]:
        assert went_on.wait(20)
        renewed.append(threading.current_thread().name)
        later = datetime.now(UTC) + timedelta(hours=1)
        return {
            "access_key": f"AKIDRENEWED{len(renewed)}",
            "secret_key": "s" * 20,
            "token": "t" * 20,
            "expiry_time": later.isoformat(),
        }

    old = datetime.now(UTC) - timedelta(minutes=1)
    credentials = RefreshableCredentials("AKIDOLD", "s" * 20, "t" * 20, old, renew, "test")
    session = Boto3Like(credentials)
    server.replies = [WHOLE]

    async def tick() -> None:
        for _ in range(6):
            await asyncio.sleep(0.01)
        went_on.set()

    ticking = asyncio.create_task(tick())
    asked = model(server, aws_session=session)
    await asked.respond(ASK, sink)
    await asked.respond(ASK, sink)
    await ticking
    authorization = server.asked[0].headers["authorization"]
    assert "Credential=AKIDRENEWED1/" in authorization
    assert "/ca-central-1/bedrock/" in authorization
    assert len(renewed) == 1
    assert threading.main_thread().name not in (*renewed, *session.threads)


async def test_credentials_that_cannot_be_had_are_an_error_without_secrets(
    server: ReplayServer, sink: Sink, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server.replies = [WHOLE]
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(MissingKeyError, match=r"ProfileNotFound.*nobody"):
        await model(server, region="us-east-1").respond(ASK, sink)
    (tmp_path / "config").write_bytes(b"\xff\xfe[\x00broken")
    with pytest.raises(MissingKeyError, match="cannot be loaded"):
        await model(server).respond(ASK, sink)
    (tmp_path / "config").unlink()
    monkeypatch.delenv("AWS_PROFILE")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDALONE")
    with pytest.raises(MissingKeyError, match="PartialCredentials"):
        await model(server, region="us-east-1").respond(ASK, sink)
    assert server.asked == []


async def test_without_any_credentials_amazons_hosts_are_not_asked(sink: Sink) -> None:
    with pytest.raises(MissingKeyError, match="AWS_BEARER_TOKEN_BEDROCK") as caught:
        await BedrockConverse("amazon.nova-lite-v1:0", region="us-east-1").respond(ASK, sink)
    assert "amazon.nova-lite-v1:0" in str(caught.value)
    with pytest.raises(MissingKeyError, match="AWS_BEARER_TOKEN_BEDROCK"):
        await Agent(model=BedrockConverse("m", region="us-east-1")).arun("Hi")


async def test_another_server_may_want_nothing(server: ReplayServer, sink: Sink) -> None:
    server.replies = [WHOLE]
    await model(server).respond(ASK, sink)
    await model(server, default_headers={"authorization": "Basic abc"}, **KEYS).respond(ASK, sink)
    assert "authorization" not in server.asked[0].headers
    assert server.asked[1].headers["authorization"] == "Basic abc"


@pytest.mark.parametrize(
    ("region", "host"),
    [
        ("us-east-1", "bedrock-runtime.us-east-1.amazonaws.com"),
        ("us-gov-west-1", "bedrock-runtime.us-gov-west-1.amazonaws.com"),
        ("cn-north-1", "bedrock-runtime.cn-north-1.amazonaws.com.cn"),
    ],
)
async def test_the_host_is_that_of_the_region(sink: Sink, region: str, host: str) -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, content=WHOLE.body[0], headers={"content-type": "application/json"})

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        settings = {**KEYS, "region": region, "http_client": client}
        await BedrockConverse(ARN, **settings).respond(ASK, sink)
    assert asked[0].url.host == host
    assert asked[0].url.raw_path == f"/model/{ARN.replace(':', '%3A').replace('/', '%2F')}/converse".encode()
    assert f"/{region}/bedrock/" in asked[0].headers["authorization"]


async def test_a_region_is_needed_and_is_a_word(sink: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="AWS_REGION"):
        await BedrockConverse("m", api_key="any").respond(ASK, sink)
    with pytest.raises(UsageError, match="AWS_REGION"):
        await BedrockConverse("m", aws_access_key_id="a", aws_secret_access_key="b").respond(ASK, sink)
    with pytest.raises(UsageError, match=r"evil\.example"):
        await BedrockConverse("m", api_key="any", region="evil.example/").respond(ASK, sink)


async def test_a_server_elsewhere_is_signed_for_in_a_region(server: ReplayServer, sink: Sink) -> None:
    server.replies = [WHOLE]
    keys = {name: value for name, value in KEYS.items() if name != "region"}
    with pytest.raises(UsageError, match="region"):
        await model(server, **keys).respond(ASK, sink)
    assert server.asked == []


@pytest.mark.parametrize(
    "settings",
    [
        {"aws_access_key_id": "a"},
        {"aws_secret_access_key": "a"},
        {"aws_session_token": "a"},
        {"aws_access_key_id": "a", "aws_secret_access_key": "b", "api_key": "c"},
        {"aws_access_key_id": "a", "aws_secret_access_key": "b", "aws_session": Boto3Like(None)},
        {"aws_session": Boto3Like(None), "api_key": "c"},
        {"cache": "2h"},
        {"extra_body": {"messages": []}},
        {"extra_body": {"system": []}},
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        BedrockConverse("m", **settings)


async def test_no_frame_of_an_error_shows_a_key(client: str, sink: Sink) -> None:
    async def closes(wire: Wire) -> None:
        await wire.request()

    async with raw_server(closes) as server:
        with pytest.raises(ModelError) as caught:
            await BedrockConverse("m", base_url=server.url, max_retries=1, **KEYS).respond(STREAM, sink)
    text = reported(caught.value.with_traceback(caught.tb.tb_next))  # not this function's variables
    assert all(secret[:12] not in text and secret[-12:] not in text for secret in SECRETS)


def test_a_copy_of_a_model_has_its_credentials() -> None:
    twin = copy.deepcopy(BedrockConverse("m", **KEYS))
    assert twin._access.credentials().access_key == KEYS["aws_access_key_id"]
    assert all(secret not in repr(vars(twin)) for secret in SECRETS)


def test_a_string_names_a_model_of_bedrocks() -> None:
    made = resolve(f"bedrock:{ARN}")
    assert (type(made), made.id, made.provider) == (BedrockConverse, ARN, "bedrock")


def test_without_botocore_the_error_says_what_to_install() -> None:
    code = """
import sys
sys.modules["botocore"] = None
import kern
from kern.errors import MissingExtraError
from kern.models.resolve import resolve
for ask in (lambda: __import__("kern.models.bedrock"), lambda: resolve("bedrock:amazon.nova-lite-v1:0")):
    try:
        ask()
    except MissingExtraError as error:
        assert "pip install 'kern-agents[bedrock]'" in str(error), error
        assert error.__cause__ is not None
    else:
        raise SystemExit("no error")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("id", ["us.anthropic.claude-haiku-4-5-20251001-v1:0", "amazon.nova-lite-v1:0", ARN])
def test_an_id_of_bedrocks_without_its_provider_is_told_what_to_write(id: str) -> None:
    with pytest.raises(UsageError, match=f'such as "bedrock:{re.escape(id)}"'):
        resolve(id)
