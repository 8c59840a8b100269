"""A pytest plugin: the fixture `cassette` replays the runs of a test, or records them; and a failure of the
conformance suites of `kern.testing` shows the values that were compared.

    # conftest.py
    pytest_plugins = ["kern.testing.pytest_plugin"]

    # test_desk.py
    async def test_the_desk_plans_a_trip(cassette):
        output = await team.arun("Plan a trip")

The file is `cassettes/<module>/<test>.json` beside the test; `<test>` is the function with its classes and
parameters, as in `TestTrips.test_paris-2_people`. `pytest --kern-record=once` records tests
without a file, and `--kern-record=all` records all tests again. By default runs are only replayed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite(
    *("kern.testing.db", "kern.testing.model", "kern.testing._db_commits", "kern.testing._db_journals"),
    *("kern.testing._db_listings", "kern.testing._db_rows", "kern.testing._db_sharing"),
)

from kern.errors import UsageError  # noqa: E402  # pytest rewrites what is imported from here on
from kern.testing.cassette import Cassette, Mode  # noqa: E402
from kern.testing.cassette import cassette as using  # noqa: E402

_LONGEST = 150  # characters: file systems take 255 bytes

_MODES: dict[str, Mode] = {"none": "replay", "once": "auto", "all": "record"}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--kern-record`."""
    parser.getgroup("kern").addoption(
        "--kern-record",
        choices=list(_MODES),
        default="none",
        help="record the runs of tests with the fixture `cassette`: none, once (where there is no file), all",
    )


@pytest.fixture
def cassette(request: pytest.FixtureRequest) -> Iterator[Cassette]:
    """The cassette of the test: its top-level runs are replayed from it, or recorded to it."""
    file = _file_of(request.node)
    mode = _MODES[str(request.config.getoption("--kern-record"))]
    if mode == "replay" and not file.exists():
        raise UsageError(f"the test's cassette {file} does not exist; record it with --kern-record=once")
    with using(file, mode) as tape:
        yield tape


def _file_of(item: pytest.Item) -> Path:
    """Name the file of a test after its classes, its function and its parameters."""
    function, bracket, parameters = item.name.partition("[")
    classes = item.nodeid.removesuffix(item.name).split("::")[1:-1]
    name = ".".join([*classes, function]) + bracket.replace("[", "-") + parameters.removesuffix("]")
    plain = re.sub(r"[^\w.-]+", "_", name)[:_LONGEST]
    if plain != name or parameters != parameters.lower():
        # Another test may have the same name by now; some file systems take upper for lower case.
        plain += "-" + hashlib.sha256(name.encode()).hexdigest()[:8]
    path = Path(item.path)
    return path.parent / "cassettes" / path.stem / f"{plain}.json"
