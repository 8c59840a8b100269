"""The two kinds of MCP servers, a program and a url, and how to open the message streams to each."""

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
        """The server's name in errors."""
        ...

    @property
    def calls_fail_alone(self) -> bool:
        """Each call has its own HTTP connection: if one breaks, the others may be intact."""
        ...

    @property
    def clean(self) -> Clean:
        """Masks the server's secrets in an error or a log, in case the server repeats them."""
        ...

    @property
    def clean_result(self) -> Clean:
        """Masks in a tool's result, which a model reads, only what looks like a secret."""
        ...

    def open(self) -> AbstractAsyncContextManager[Streams]:
        """Open the message streams; enter and exit the context in the same task."""
        ...


@dataclass(frozen=True)
class Program:
    """A server that runs as a child process and communicates over its standard input and output.

    Args:
        name: The server's name in errors.
        command: The program and its arguments; these may contain secrets.
        env: Environment variables, secret, beside the few harmless ones that every server gets.
    """

    name: str
    command: tuple[str, ...] = field(repr=False)
    env: Mapping[str, str] = field(repr=False)

    calls_fail_alone = False

    @property
    def clean(self) -> Clean:
        """Masks the values of `env` and of the arguments, except paths."""
        return self._clean

    @cached_property
    def _clean(self) -> Clean:
        given = [argument for argument in self.command[1:] if not argument.startswith("-")]
        given += [argument.partition("=")[2] for argument in self.command[1:] if argument.startswith("-")]
        return Masker(value for value in (*self.env.values(), *given) if not _is_path(value))

    @property
    def clean_result(self) -> Clean:
        """Masks only those values that look like secrets."""
        return self._clean_result

    @cached_property
    def _clean_result(self) -> Clean:
        named = [value for name, value in self.env.items() if is_secret(name, value)]
        return Masker([*named, *_secret_arguments(self.command[1:])])

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Streams]:
        """Start the program. At the end, close its input, and end it if it does not exit by itself."""
        from mcp import StdioServerParameters
        from mcp.client.stdio import stdio_client

        program, *arguments = self.command
        # Without validation, which would turn masked texts into plain ones in local variables below.
        parameters = StdioServerParameters.model_construct(
            command=program,
            args=[Masked(argument) for argument in arguments],
            env=dict(self.env),
            encoding_error_handler="replace",  # otherwise a line that is not UTF-8 would stop the reader
        )
        # Not sys.stderr: in a notebook or a test it is not a file that a process can inherit.
        async with stdio_client(parameters, sys.__stderr__) as streams:  # type: ignore[arg-type]  # or None
            yield streams


@dataclass(frozen=True)
class Endpoint:
    """A server that is reached over HTTP, with MCP's streamable HTTP transport.

    Args:
        name: The server's name in errors.
        url: The address, which may contain a secret.
        headers: Headers of each request, secret.
        connect_seconds: How long the server may take to accept a connection.
        max_answer_bytes: The longest message from the server, in bytes; None: any length.
    """

    name: str
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    connect_seconds: float
    max_answer_bytes: int | None = None

    calls_fail_alone = True

    @property
    def clean(self) -> Clean:
        """Masks the values of headers, and the parameters and password of the url."""
        return self._clean

    @cached_property
    def _clean(self) -> Clean:
        named = [value for name, value in self.headers.items() if name.lower() not in HARMLESS_HEADERS]
        address = urlsplit(self.url)
        return Masker([*named, *(part for _, part in parse_qsl(address.query)), address.password or ""])

    @property
    def clean_result(self) -> Clean:
        """The same as `clean`."""
        return self.clean

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Streams]:
        """Open an HTTP client. At the end, tell the server that the session is over."""
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
        """Make the client; it reads certificates, so call this in a thread."""
        return make_client(self.headers, self.connect_seconds, Answers(self.max_answer_bytes, self.clean))


def _secret_arguments(arguments: Sequence[str]) -> Iterator[str]:
    """The arguments that are secret by the name of their option (`--token x`, `--token=x`) or by their
    form.
    """
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
    """Whether a variable or argument is secret, by its name or because its value looks random."""
    if _is_path(value):
        return False
    if _SECRET_NAME.search(name) and not value.startswith("-"):
        return True
    words = re.split(r"[\s;,:=&?@]+", value)
    return any(_RANDOM.fullmatch(word) and sum(map(str.isdigit, word)) >= _MANY_DIGITS for word in words)


def _is_path(value: str) -> bool:
    return isabs(value) or value.startswith(("./", "../", "~/"))
