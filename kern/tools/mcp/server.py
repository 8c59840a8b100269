"""Where an MCP server is, and how the two streams of messages to and from it are opened."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import cached_property
from os.path import isabs
from typing import TYPE_CHECKING, Protocol
from urllib.parse import parse_qsl, urlsplit

from kern._secrets import HARMLESS_HEADERS, Masked, Masker
from kern.tools.mcp.http import Answers, make_client
from kern.tools.mcp.incoming import Clean, Streams

if TYPE_CHECKING:
    import httpx2

_SECRET_NAME = re.compile(
    r"key|token|secret|passw|pwd|auth|cred|cookie|session|sig|private|dsn|bearer|jwt|\bpat\b|_pat\b|_url\b",
    re.IGNORECASE,
)
_RANDOM = re.compile(r"[A-Za-z0-9+/_.~-]{16,}")
_MANY_DIGITS = 3


class Server(Protocol):
    """A server that can be connected to, once the package `mcp` is imported."""

    @property
    def name(self) -> str:
        """What errors call it."""
        ...

    @property
    def calls_fail_alone(self) -> bool:
        """Each call has a connection of its own below: one that breaks off does not tell of the others."""
        ...

    @property
    def clean(self) -> Clean:
        """Takes the server's secrets, which it may have repeated, out of an error or a log."""
        ...

    @property
    def clean_result(self) -> Clean:
        """Takes out of what a model works with what is a secret by its name or its looks."""
        ...

    def open(self) -> AbstractAsyncContextManager[Streams]:
        """The streams, for as long as the context lasts; to be left in the task that has entered it."""
        ...


@dataclass(frozen=True)
class Program:
    """A server that is started as a process, and spoken to over its standard input and output.

    Args:
        name: What errors call it.
        command: The program and its arguments, which may hold secrets.
        env: Environment variables, beside the few harmless ones that it has in any case: secrets.
    """

    name: str
    command: tuple[str, ...] = field(repr=False)
    env: Mapping[str, str] = field(repr=False)

    calls_fail_alone = False

    @property
    def clean(self) -> Clean:
        """Takes out what the environment and the arguments may hide from others. A path is no secret."""
        return self._clean

    @cached_property
    def _clean(self) -> Clean:
        given = [argument for argument in self.command[1:] if not argument.startswith("-")]
        given += [argument.partition("=")[2] for argument in self.command[1:] if argument.startswith("-")]
        return Masker(value for value in (*self.env.values(), *given) if not _is_path(value))

    @property
    def clean_result(self) -> Clean:
        """Likewise, but no more than the secrets."""
        return self._clean_result

    @cached_property
    def _clean_result(self) -> Clean:
        named = [value for name, value in self.env.items() if is_secret(name, value)]
        return Masker([*named, *_secret_arguments(self.command[1:])])

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Streams]:
        """Start the program; at the end its input is closed, and if it stays all the same, it is ended."""
        from mcp import StdioServerParameters
        from mcp.client.stdio import stdio_client

        program, *arguments = self.command
        # Not checked, since that would make plain texts of masked ones: these are local variables below.
        parameters = StdioServerParameters.model_construct(
            command=program,
            args=[Masked(argument) for argument in arguments],
            env=dict(self.env),
            encoding_error_handler="replace",  # a line that is no UTF-8 would end the reading for good
        )
        # Not sys.stderr, which in a notebook or a test is no file that a process could have.
        async with stdio_client(parameters, sys.__stderr__) as streams:  # type: ignore[arg-type]  # or None
            yield streams


@dataclass(frozen=True)
class Endpoint:
    """A server that is reached over HTTP, by the transport that is called streamable HTTP.

    Args:
        name: What errors call it.
        url: Its address, which may hold a secret.
        headers: Sent with each request: secrets.
        connect_seconds: How long it may take to accept a connection.
        max_answer_bytes: The longest message that is taken in; None: any.
    """

    name: str
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    connect_seconds: float
    max_answer_bytes: int | None = None

    calls_fail_alone = True

    @property
    def clean(self) -> Clean:
        """Takes out what the headers and the address hide from others."""
        return self._clean

    @cached_property
    def _clean(self) -> Clean:
        named = [value for name, value in self.headers.items() if name.lower() not in HARMLESS_HEADERS]
        address = urlsplit(self.url)
        return Masker([*named, *(part for _, part in parse_qsl(address.query)), address.password or ""])

    @property
    def clean_result(self) -> Clean:
        """Likewise."""
        return self.clean

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Streams]:
        """Make an HTTP client; at the end the server is told that its session is over."""
        from mcp.client.streamable_http import streamable_http_client

        client = await asyncio.to_thread(self._client)
        async with (
            client,
            streamable_http_client(
                self.url, http_client=client, max_sse_event_size=self.max_answer_bytes
            ) as streams,
        ):
            yield streams

    def _client(self) -> httpx2.AsyncClient:
        """In a thread, because certificates are read."""
        return make_client(self.headers, self.connect_seconds, Answers(self.max_answer_bytes, self.clean))


def _secret_arguments(arguments: Sequence[str]) -> Iterator[str]:
    """Those that are secrets by the name of their option (`--token x`, `--token=x`), or by their looks."""
    before = ""
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if equals and name.startswith("-"):
            if is_secret(name, value):
                yield value
        elif is_secret(before if before.startswith("-") else "", argument):
            yield argument
        before = argument


def is_secret(name: str, value: str) -> bool:
    """A variable or an argument of this name and value is one that a model has no use for either."""
    if _is_path(value):
        return False
    if _SECRET_NAME.search(name) and not value.startswith("-"):
        return True
    words = re.split(r"[\s;,:=&?@]+", value)
    return any(_RANDOM.fullmatch(word) and sum(map(str.isdigit, word)) >= _MANY_DIGITS for word in words)


def _is_path(value: str) -> bool:
    return isabs(value) or value.startswith(("./", "../", "~/"))
