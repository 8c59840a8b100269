"""Durable runs: journals record each step of a run, so that another process can go on with the run."""

from kern.durable.db_journal import DbJournal
from kern.durable.deltas import Delta, DeltaStream, InMemoryDeltas
from kern.durable.journal import Entry, Journal, Playback, RunAsked, RunJournal
from kern.durable.submission import Submission

__all__ = [
    "DbJournal",
    "Delta",
    "DeltaStream",
    "Entry",
    "InMemoryDeltas",
    "Journal",
    "Playback",
    "RunAsked",
    "RunJournal",
    "Submission",
]
