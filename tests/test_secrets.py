"""No secret is shown, whole or in pieces."""

from __future__ import annotations

import base64
import copy
import pickle

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
