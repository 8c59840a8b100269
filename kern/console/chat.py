"""A chat loop in the terminal: read a line, answer it, again."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager

from kern.console._input import LineReader
from kern.console._text import encodable
from kern.console._view import was_shown
