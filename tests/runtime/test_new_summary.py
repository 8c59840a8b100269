"""A new summary of a session, until a commit writes it."""

from __future__ import annotations

from kern.runtime.new_summary import NewSummary
from kern.testing.db import run_row


def test_a_commit_that_fails_takes_the_summary_of_its_own_run_alone() -> None:
    summary = NewSummary()
    summary.set("zero, one", "zero", "one")
    summary.undo([run_row("two")])
    assert summary.text == "zero, one"
    summary.undo([run_row("one")])
    assert (summary.text, summary.bases) == (None, frozenset())


def test_a_summary_knows_what_it_goes_on_from_until_it_is_written() -> None:
    summary = NewSummary()
    summary.set("zero, one", "zero", "one")
    summary.set("zero, one, two", "zero", "two")
    assert {"zero", "zero, one"} <= summary.bases
    summary.written("zero, one")
    assert summary.text == "zero, one, two"
    summary.written("zero, one, two")
    assert summary.text is None
