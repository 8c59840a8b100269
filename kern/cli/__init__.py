"""The `kern` command."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import sys
from collections.abc import Sequence

from kern._log import named
from kern._version import __version__
from kern.cli._report import say
from kern.cli.db import add_db_parser
from kern.cli.demo import add_demo_parser
from kern.cli.worker import add_worker_parser
from kern.console import was_shown
from kern.errors import KernError

__all__ = ["main"]

_INTERRUPTED = 130  # 128 plus the number of SIGINT, as shells do


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code.

    Args:
        arguments: The arguments without the program's name; None: those of the process.
    """
    parser = argparse.ArgumentParser(prog="kern", description="Kern, an async-first agent runtime.")
    parser.add_argument("--version", action="version", version=f"kern {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_demo_parser(commands)
    add_db_parser(commands)
    add_worker_parser(commands)
    chosen, unknown = parser.parse_known_args(arguments)
    if unknown:  # the usage of the command shows its options, that of `kern` does not
        commands.choices[chosen.command].error(f"unknown arguments: {' '.join(unknown)}")
    named("kern").addHandler(logging.NullHandler())  # errors are shown anyway, at the latest as the last line
    if sys.stdout is None:  # closed, as with `>&-`
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for as long as the process lives
    try:
        code: int = chosen.run(chosen)
        sys.stdout.flush()
        return code
    except KernError as error:
        if not (was_shown(error) and sys.stdout.isatty()):
            say(str(error))
        return 1
    except KeyboardInterrupt:
        say("interrupted")
        return _INTERRUPTED
    except BrokenPipeError:
        _drop_output()
        return 1
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        say(f"the output cannot be written: {error.strerror}")
        _drop_output()
        return 1


def _drop_output() -> None:
    """Keep the interpreter from flushing the output at exit: its reader has gone, or the disk is full."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
