"""A real terminal for tests: a program in a pseudo-terminal, and an emulator of what a person sees."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pexpect
import pyte

ROOT = str(Path(__file__).resolve().parents[2])


class Terminal:
    """Runs Python code in a terminal of the given size."""

    def __init__(
        self, code: str, *arguments: str, rows: int = 24, columns: int = 80, **environment: str
    ) -> None:
        env = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "COLUMNS", "LINES")}
        env |= {"PYTHONPATH": ROOT, "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"} | environment
        self.screen = pyte.HistoryScreen(columns, rows, history=10_000)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self.child = pexpect.spawn(
            sys.executable,
            ["-c", code, *arguments],
            env=env,
            dimensions=(rows, columns),
            timeout=20,
            # A test run in the background of a shell ignores Ctrl-C, and its children would inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        self.child.logfile_read = self
        self.child.delaybeforesend = None

    def write(self, data: bytes) -> None:
        """What the program wrote, from pexpect."""
        self.raw += data
        self._stream.feed(data)

    def flush(self) -> None:
        """Nothing waits."""

    def run(self) -> int | None:
        """Wait for the program's end; its exit status."""
        self.child.expect(pexpect.EOF)
        self.child.close()
        status: int | None = self.child.exitstatus
        return status

    @property
    def scrollback(self) -> list[str]:
        """The lines that have left the screen at its top."""
        width = self.screen.columns
        return ["".join(line[x].data for x in range(width)).rstrip() for line in self.screen.history.top]

    @property
    def lines(self) -> list[str]:
        """The scrollback and the screen, without the empty lines at its end."""
        lines = [*self.scrollback, *(line.rstrip() for line in self.screen.display)]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    @property
    def is_clean(self) -> bool:
        """The cursor is visible, at the start of a line, and nothing is left switched on."""
        cursor = self.screen.cursor
        attributes = (cursor.attrs.fg, cursor.attrs.bg, cursor.attrs.bold)
        on = {mode for mode in self.screen.mode if mode not in (pyte.modes.DECAWM, pyte.modes.DECTCEM)}
        return not cursor.hidden and cursor.x == 0 and attributes == ("default", "default", False) and not on
