"""A wire between a client and a Postgres server: it counts what is asked, and loses answers if told to."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress
from pathlib import Path

from tests.postgres import PORT, USER, Postgres

_ENDS_A_QUESTION = b"SQH"
"""Sync, Query and Flush: after each of them the client waits for the server."""


class Wire:
    """Connections to `url` go through it.

    Args:
        folder: Where its socket is.
    """

    def __init__(self, server: Postgres, folder: Path) -> None:
        self.url = f"postgresql://{USER}@/postgres?host={folder}&port={PORT}"
        self.questions = 0
        """How often a client has waited for the server."""
        self.answers_to_lose = 0
        """The connection breaks after the server has done what it was asked, and before it is heard."""
        self.questions_to_lose = 0
        """The connection breaks before the server has heard the question."""
        self._server = str(server.folder / f".s.PGSQL.{PORT}")
        self._mutex = threading.Lock()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / f".s.PGSQL.{PORT}"))
        self._listener.listen(64)
        self._open: list[socket.socket] = [self._listener]
        self._links: list[_Link] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for each in self._open:
            _end(each)

    def cut(self) -> None:
        """Break all connections."""
        for each in self._open[1:]:
            _end(each)

    def hush(self, *, hears: bool) -> None:
        """Leave all connections open, and pass no answers any more. New connections are passed on.

        Args:
            hears: Whether the server still hears the questions.
        """
        for link in self._links:
            link.is_mute, link.is_deaf = True, not hears

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._server)
                self._open += [client, server]
                link = _Link(self, client, server)
                self._links.append(link)
                for pump in (link.ask, link.answer):
                    threading.Thread(target=pump, daemon=True).start()

    def asked(self) -> str:
        """A client asks: what becomes of the question."""
        with self._mutex:
            self.questions += 1
            if self.questions_to_lose:
                self.questions_to_lose -= 1
                return "lost"
            if self.answers_to_lose:
                self.answers_to_lose -= 1
                return "unanswered"
            return "passed"


class _Link:
    def __init__(self, wire: Wire, client: socket.socket, server: socket.socket) -> None:
        self._wire, self._client, self._server = wire, client, server
        self._unanswered = False
        self.is_mute = False
        self.is_deaf = False

    def ask(self) -> None:
        with suppress(OSError, EOFError):
            start = _exactly(self._client, 4)
            self._server.sendall(start + _exactly(self._client, struct.unpack("!i", start)[0] - 4))
            binds = False
            while True:
                head = _exactly(self._client, 5)
                message = head + _exactly(self._client, struct.unpack("!i", head[1:])[0] - 4)
                binds = binds or head[:1] in b"BQ"
                if head[:1] in _ENDS_A_QUESTION and binds:
                    fate, binds = self._wire.asked(), False
                    if fate == "lost":
                        break
                    self._unanswered = fate == "unanswered"
                if not self.is_deaf:
                    self._server.sendall(message)
        self._end()

    def answer(self) -> None:
        with suppress(OSError, EOFError):
            while data := self._server.recv(1 << 16):
                if self._unanswered:
                    break
                if not self.is_mute:
                    self._client.sendall(data)
        self._end()

    def _end(self) -> None:
        _end(self._client)
        _end(self._server)


def _end(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data
