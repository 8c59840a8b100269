"""The extra `fast` says all that goes wrong in the words of httpx; the rest is in the transport's tests."""

from __future__ import annotations

import ssl

import httpx
import pytest

from kern.models._failures import Origin, of_exception

aiohttp = pytest.importorskip("aiohttp", reason="the extra fast is not installed")

from kern.models._aiohttp import _CAUGHT, mapped_error  # noqa: E402 - it needs aiohttp

ORIGIN = Origin("openai", "m", "example.com")


def subclasses(kind: type[Exception]) -> list[type[Exception]]:
    return [kind, *(sub for child in kind.__subclasses__() for sub in subclasses(child))]


AIOHTTP = sorted(
    {kind for kind in subclasses(aiohttp.ClientError) if kind.__module__.startswith("aiohttp")},
    key=lambda kind: kind.__name__,
)


@pytest.mark.parametrize("kind", [*AIOHTTP, OSError, ssl.SSLError])
def test_every_exception_of_aiohttp_becomes_one_of_httpx(kind: type[Exception]) -> None:
    error = kind.__new__(kind)
    assert isinstance(error, _CAUGHT)
    mapped = mapped_error(error)
    assert of_exception(mapped, ORIGIN, reading=True) is not None
    if issubclass(kind, TimeoutError):
        assert isinstance(mapped, httpx.TimeoutException)
    if issubclass(kind, aiohttp.ClientConnectorError):
        assert isinstance(mapped, httpx.ConnectError)


def test_the_list_of_exceptions_is_not_empty() -> None:
    assert len(AIOHTTP) > 20
