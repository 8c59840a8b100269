"""What a picture or another file is given as is looked at where it is made, before anything is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kern import Agent
from kern.errors import UsageError
from kern.messages import Audio, File, Image, Media, Video
from kern.testing import ScriptedModel

KINDS = [Image, Audio, Video, File]


@pytest.mark.parametrize("kind", KINDS)
def test_text_is_no_content_and_the_error_says_what_makes_bytes_of_it(kind: type[Media]) -> None:
    with pytest.raises(UsageError, match=r"content=\.\.\.\) must be bytes .*base64\.b64decode"):
        kind(content="aGVsbG8=")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "wrong",
    [
        {"content": 5},
        {"content": ["x"]},
        {"url": b"http://x"},
        {"url": Path("x")},
        {"filepath": b"x"},
        {"filepath": 5},
        {"content": b"x", "mime_type": 5},
        {"content": b"x", "name": b"x"},
        {"id": 5},
    ],
)
def test_other_types_are_refused_too(kind: type[Media], wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="must be"):
        kind(**wrong)


def test_other_kinds_of_bytes_are_bytes() -> None:
    assert Image(content=bytearray(b"x")) == Image(content=memoryview(b"x")) == Image(content=b"x")


async def test_a_path_that_cannot_be_one_is_refused_before_anything_is_asked() -> None:
    model = ScriptedModel(["ok"])
    with pytest.raises(UsageError, match=r"the file .* cannot be read"):
        await Agent(model=model).arun("q", images=[Image(filepath="a\0b")])
    assert model.requests == []
