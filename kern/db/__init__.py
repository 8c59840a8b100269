"""Databases for sessions and runs."""

from kern.db.base import Db
from kern.db.in_memory import InMemoryDb
from kern.db.sqlite import SqliteDb

__all__ = ["Db", "InMemoryDb", "SqliteDb"]
