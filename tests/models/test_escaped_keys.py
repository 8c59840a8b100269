"""A key that a provider repeats in escapes, in a body that is no JSON, is seen nowhere."""

from __future__ import annotations

import html
import json
import pickle
import traceback
from pathlib import Path

import pytest

from kern import Agent, KernError
from kern.db.sqlite import SqliteDb
from kern.models.openai import OpenAIChat
from tests.models.raw_server import head, raw_server

KEY = 'ab/cd+ef==/ghij/"kl<mno>&pq'
WRITTEN = {
    "slashes": json.dumps(KEY)[1:-1].replace("/", "\\/"),
    "codes": "".join(f"\\u{ord(letter):04x}" for letter in KEY),
    "html": html.escape(KEY),
    "html of json": html.escape(json.dumps({"key": KEY})),
    "percent": "".join(f"%{ord(letter):02x}" for letter in KEY),
}


@pytest.mark.parametrize("written", WRITTEN.values(), ids=WRITTEN)
@pytest.mark.parametrize("status", ["401 No", "500 Oops", "200 OK"])
async def test_an_escaped_key_is_hidden_in_a_body_that_is_cut(
    written: str, status: str, tmp_path: Path
) -> None:
    said = f'{{"error": {{"message": "your key is {written}", "type": "au'.encode()
    answer = head(f"content-length: {len(said)}", status=status) + said
    async with raw_server(lambda wire: wire.send(answer)) as server:
        model = OpenAIChat("m", base_url=server.url, api_key=KEY, max_retries=0)
        db = SqliteDb(tmp_path / "a.db")
        with pytest.raises(KernError) as caught:
            await Agent(model=model, db=db).arun("Hi", session_id="s")
        error = caught.value
        assert error.run_output is not None
        seen = [*traceback.format_exception(error), repr(error), str(pickle.loads(pickle.dumps(error)))]
        seen.append(str(error.run_output.to_dict()))
        await db.aclose()
    rows = (tmp_path / "a.db").read_bytes().decode(errors="replace")
    assert "your key is" in str(error) or status == "200 OK"
    for piece in (written[:30], written[-30:], KEY[:12]):
        assert piece not in "\n".join(seen) + rows
