"""The checks of a constructor's parameters."""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection, Mapping, Sequence
from datetime import tzinfo
from operator import attrgetter
from typing import Any, Final

from kern._numbers import MOST, check_seconds, check_whole
from kern.db.base import Db
from kern.errors import UsageError
from kern.messages import ROLES, Message
from kern.models.base import Model, check_price
from kern.run.events import RunEvent, TeamRunEvent
from kern.runner.options import OWN_CHECKS, check_id, check_journal

_LIST = (list, tuple, Sequence)  # list and tuple first: nearly always the case, and quick to check
_KINDS: tuple[tuple[str, tuple[type, ...], str], ...] = (
    *((name, (str,), "a str") for name in ("name", "role", "description", "expected_output")),
    *((name, (str,), "a str") for name in ("additional_context", "introduction")),
    *((name, (str, Model), "a Model or 'provider:id'") for name in ("model", "parser_model", "output_model")),
    ("session_summary_model", (str, Model), "a Model or 'provider:id'"),
    *((name, _LIST, "a list") for name in ("tools", "tool_hooks", "additional_input")),
    *((name, _LIST, "a list") for name in ("fallback_models", "state_migrations", "pre_hooks", "post_hooks")),
)
_HOOKS = ("tool_hooks", "pre_hooks", "post_hooks")
_NEVER_NONE = frozenset((*_HOOKS, "state_migrations", "num_history_runs", "retries", "delay_between_retries"))
_COUNTS = (
    *("num_history_runs", "num_history_messages", "max_tool_calls_from_history"),
    *("tool_call_limit", "max_requests", "retries", "delay_between_retries"),
)
_USUAL_COUNTS = (3, None, None, None, 200, 0, 1.0)
# Many at once, for speed: some programs make thousands of agents, and most parameters have their defaults.
_kinds_of = attrgetter(*(name for name, _, _ in _KINDS))
_counts_of = attrgetter(*_COUNTS)
_seen_kinds: set[tuple[type, ...]] = set()
"""The combinations of types that `_check_kinds` has accepted."""
_MOST_KINDS = 1000
_SELDOM = (
    *OWN_CHECKS,
    *("id", "db", "journal", "tool_choice", "system_message", "timezone_identifier", "fallback_models"),
    "additional_input",
)
_seldom_of = attrgetter(*_SELDOM)
_NONE_OF_THEM = (type(None),) * len(_SELDOM)

EVENTS_TO_SKIP: Final = (
    RunEvent.run_content,
    TeamRunEvent.run_content,
    RunEvent.reasoning_content_delta,
    TeamRunEvent.reasoning_content_delta,
    RunEvent.tool_call_arguments_delta,
    TeamRunEvent.tool_call_arguments_delta,
)
"""The default of `events_to_skip`: the events of single deltas, of which there are many."""


def check_definition(definition: Any) -> None:
    """Check the types and values of the parameters of an agent or a team.

    Raises:
        UsageError: One is invalid. The error names the parameter, which a later failure would not.
    """
    if tuple(map(type, _seldom_of(definition))) != _NONE_OF_THEM:
        _check_seldom(definition)
    if (price := getattr(definition.model, "price", None)) is not None:
        check_price(price)
    kinds = tuple(map(type, _kinds_of(definition)))
    if kinds not in _seen_kinds:
        _check_kinds(definition)
        if len(_seen_kinds) < _MOST_KINDS:
            _seen_kinds.add(kinds)
    counts = _counts_of(definition)
    if counts != _USUAL_COUNTS:
        for given, name in zip(counts, _COUNTS, strict=True):
            if name == "delay_between_retries":
                check_seconds(name, given, zero=True, endless=False)
            elif given is not None or name in _NEVER_NONE:
                check_whole(name, given)
    if (role := definition.system_message_role) not in ROLES:
        raise UsageError(f"system_message_role must be one of {', '.join(ROLES)}, not {role!r}")
    if (skipped := definition.events_to_skip) is not EVENTS_TO_SKIP:
        _check_events(skipped)
    instructions = definition.instructions
    if not (instructions is None or isinstance(instructions, str) or callable(instructions)) and not (
        isinstance(instructions, Sequence) and all(isinstance(line, str) for line in instructions)
    ):
        raise UsageError(f"instructions must be a str, a list of str, or a function, not {instructions!r}")


def _check_seldom(definition: Any) -> None:
    """Check the parameters that most programs leave at their defaults."""
    for name, check in OWN_CHECKS.items():
        if (given := getattr(definition, name)) is not None:
            check(name, given)
    check_id("id", definition.id)
    check_journal("journal", definition.journal)
    if definition.db is not None and not isinstance(definition.db, Db):
        raise UsageError(f"db must be a database such as SqliteDb('agents.db'), not {definition.db!r}")
    check_tool_choice(definition.tool_choice)
    own = definition.system_message
    if not (own is None or isinstance(own, str | Message) or callable(own)):
        raise UsageError(f"system_message must be a str, a Message, or a function, not {own!r}")
    if definition.timezone_identifier is not None:
        timezone_of(definition.timezone_identifier)
    models, added = definition.fallback_models, definition.additional_input
    if isinstance(models, Sequence) and not isinstance(models, str):
        for model in models:
            if not isinstance(model, str | Model):
                raise UsageError(
                    f"fallback_models must hold Models or 'provider:id' strings; {model!r} is neither"
                )
    items = added if isinstance(added, Sequence) and not isinstance(added, str) else ()
    if not all(isinstance(item, str | Message) for item in items):
        raise UsageError("additional_input must be a list of str and Message objects")


def _check_events(skipped: Any) -> None:
    if isinstance(skipped, str) or not isinstance(skipped, Collection):
        raise UsageError(f"events_to_skip must be a list of event names, not {skipped!r}")
    if unknown := [str(name) for name in skipped if not isinstance(name, str) or name not in _EVENTS]:
        near = difflib.get_close_matches(unknown[0], _EVENTS, 1)
        hint = f"; did you mean {near[0]!r}?" if near else "; event names look like 'RunContent'"
        raise UsageError(f"events_to_skip: no event is named {unknown[0]!r}{hint}")


def timezone_of(identifier: str) -> tzinfo:
    """Return the time zone of an IANA name, such as "Europe/Berlin".

    Raises:
        UsageError: This system has no such time zone.
    """
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError  # slow to import, and few agents need it

    try:
        return ZoneInfo(identifier)
    except (ZoneInfoNotFoundError, ValueError, TypeError) as error:
        hint = "; Windows ships no timezones: install the package tzdata" if os.name == "nt" else ""
        raise UsageError(f"timezone_identifier: this system has no timezone {identifier!r}{hint}") from error


def _check_kinds(definition: Any) -> None:
    for given, (name, kinds, wanted) in zip(_kinds_of(definition), _KINDS, strict=True):
        if given is None and name not in _NEVER_NONE:
            continue
        if name in _HOOKS and callable(given):
            continue  # `check_hooks` says more
        if not isinstance(given, kinds) or (kinds is _LIST and isinstance(given, str)):
            raise UsageError(f"{name} must be {wanted}, not {given!r}")


_EVENTS = frozenset(str(event) for event in (*RunEvent, *TeamRunEvent))


def check_tool_choice(given: Any) -> str | dict[str, Any] | None:
    """Return a `tool_choice` in the form that models take: a word, or `{"name": ...}`.

    The forms of OpenAI's APIs are accepted, too: `{"type": "function", "function": {"name": ...}}` and
    `{"type": "function", "name": ...}`.

    Raises:
        UsageError: `given` has none of these forms.
    """
    if given is None or (isinstance(given, str) and given in ("auto", "none", "required")):
        return given
    if isinstance(given, Mapping) and given.get("type", "function") == "function":
        inner = given.get("function", given)
        name = inner.get("name") if isinstance(inner, Mapping) else None
        known = {"type", "function"} if "function" in given else {"type", "name"}
        if isinstance(name, str) and name and given.keys() <= known:
            return {"name": name}
    raise UsageError(f"tool_choice must be 'auto', 'none', 'required' or {{'name': ...}}, not {given!r}")


def check_limit(limit: Any) -> None:
    """Check the largest number of items to read; None: all.

    Raises:
        UsageError: It is neither None nor a whole number, 1 or more.
    """
    if limit is not None:
        check_whole("limit", limit, 1, MOST)


def check_page(limit: Any, before: Any, key: type) -> None:
    """Check the parameters of a page of a list.

    Args:
        limit: The largest number of items; must be 1 or more.
        before: The key of the last item of the previous page, or None.
        key: The type of that key.

    Raises:
        UsageError: One is invalid.
    """
    check_whole("limit", limit, 1, MOST)
    if key is int and isinstance(before, int):
        check_whole("before", before, -MOST, MOST)
    elif before is not None and not isinstance(before, key):
        what = "the position of the last session" if key is int else "the run_id of the last run"
        raise UsageError(f"before must be {what} of the previous page, not {before!r}")
    elif key is str:
        check_id("before", before)
