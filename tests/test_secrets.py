"""No secret is shown, whole or in pieces."""

from __future__ import annotations

import base64
import copy
import html
import json
import pickle
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kern._secrets import HIDDEN, Masked, MaskedBytes, mask

KEY = "sk-proj-THISISTHESECRETKEY0123456789"


def test_a_masked_text_is_itself_where_it_is_sent_and_hidden_where_it_is_shown() -> None:
    key = Masked(KEY)
    assert (str(key), f"{key}", key.encode(), key) == (KEY, KEY, KEY.encode(), KEY)
    assert repr([key, {"a": key}, key[:10], key[3]]).count(HIDDEN) == 4
    assert type(pickle.loads(pickle.dumps(key))) is Masked
    assert type(copy.deepcopy(key)) is Masked
    raw = MaskedBytes(KEY.encode())
    assert raw == KEY.encode()
    assert raw[0] == ord("s")
    assert KEY[8:] not in repr([raw, raw[:20]]) + str(raw)


@given(
    st.text(alphabet="ab .,", max_size=60), st.text(alphabet="ab .,", max_size=60), st.integers(12, len(KEY))
)
def test_a_secret_is_hidden_wherever_it_stands_and_however_it_is_cut(
    before: str, after: str, length: int
) -> None:
    for piece in (KEY[:length], KEY[-length:]):
        assert mask(f"{before}{piece}{after}", [KEY]) == f"{before}{HIDDEN}{after}"


@pytest.mark.parametrize(
    ("secret", "shown"),
    [
        (f"Bearer {KEY}", KEY),
        (f"Bearer {KEY}", KEY.lower()),
        (f"sid={KEY}; other=1", KEY),
        ("Basic " + base64.b64encode(b"me:long-password").decode(), "long-password"),
        ("abc/def+ghi=jkl", "abc%2Fdef%2Bghi%3Djkl"),
    ],
)
def test_the_parts_of_a_secret_are_secret(secret: str, shown: str) -> None:
    assert mask(f"<{shown}>", [secret]) == f"<{HIDDEN}>"
    assert mask(f"it is {shown} here", [secret]) == f"it is {HIDDEN} here"
    assert HIDDEN in mask(f"<{secret}>", [secret])


def test_a_text_without_secrets_stays_as_it_is() -> None:
    text = "Bearer of news, key=none, ollama, Basic English"
    assert mask(text, ["none", "ollama", "Bearer sk-123456789", ""]) == text


def _json(key: str) -> str:
    return json.dumps(key)[1:-1]


@pytest.mark.parametrize(
    "written",
    [
        lambda key: _json(key).replace("/", "\\/"),  # as PHP does
        lambda key: "".join(f"\\u{ord(letter):04X}" for letter in key),
        lambda key: "".join(f"\\x{ord(letter):02x}" for letter in key),
        lambda key: _json(_json(key).replace("/", "\\/")),
        html.escape,
        lambda key: html.escape(_json(key)),
        lambda key: key.replace("+", "&#43;").replace("/", "&#x2F;"),
        lambda key: quote(key, safe="/"),
        lambda key: quote(quote(key, safe=""), safe=""),
        lambda key: "".join(f"%{ord(letter):02x}" for letter in key),
        lambda key: repr(key)[1:-1],
        lambda key: _json(key)[:20],  # cut
        lambda key: _json(key)[9:],
    ],
)
def test_a_secret_is_hidden_in_whatever_escapes_it_is_written(written: Callable[[str], str]) -> None:
    key = 'ab/cd+ef==/gh"ij<kl>mn&o\\pq/rs'
    assert mask(f'{{"a": "{written(key)}" \\"', [key]) == f'{{"a": "{HIDDEN}" \\"'


@given(st.text(alphabet='\\u0041&#amp;%2f/x{}"a', max_size=40))
def test_escapes_that_are_none_do_no_harm(text: str) -> None:
    assert mask(text, [KEY]) == text
    assert mask(f"{text} {KEY}", [KEY]) == f"{text} {HIDDEN}"
