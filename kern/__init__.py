"""Kern: an async-first agent runtime."""

from kern._version import __version__

__all__ = ["__version__"]
