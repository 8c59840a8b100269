"""The commands of a chat in the terminal: show the state and the history, list and change sessions."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from kern.db.base import SessionInfo
from kern.messages import Message

T = TypeVar("T")

_PAST = 3
"""How many of the last runs a chat shows when it continues a session."""
_SESSIONS = 20


class Talker(Protocol):
    """The methods of an agent or a team that the commands use."""

    async def aget_session_state(self, session_id: str | None, *, user_id: str | None) -> Any:
        """See `StateAccess`."""
        ...

    async def aget_session_messages(
        self, session_id: str | None, *, user_id: str | None, limit: int | None
    ) -> list[Message]:
        """See `SessionAccess`."""
        ...

    async def alist_sessions(self, *, user_id: str | None, limit: int) -> list[SessionInfo]:
        """See `SessionAccess`."""
        ...


class ChatCommands:
    """The commands of one chat.

    Args:
        talker: The agent or team.
        session_id: The session at the start; `/session` changes to another one.
        user_id: The owner of the sessions.
        call: Awaits a function on the event loop that drives the runs of the talker.
    """

    def __init__(
        self,
        talker: Talker,
        session_id: str | None,
        user_id: str | None,
        call: Callable[[Callable[[], Awaitable[str]]], Awaitable[str]],
    ) -> None:
        self._talker = talker
        self._call = call
        self._user_id = user_id
        self.session_id = session_id
        self._left: object = object()  # the session of the last look, at the start none

    def just_entered(self) -> bool:
        """Whether the chat has begun, or has changed its session, since the last call of this method."""
        before, self._left = self._left, self.session_id
        return self.session_id != before

    def table(self) -> Mapping[str, Callable[[str], Awaitable[str]]]:
        """Return the commands by name."""
        return {
            "state": lambda _: self._call(self._state),
            "history": lambda _: self._call(lambda: self.past(None)),
            "sessions": lambda _: self._call(self._sessions),
            "session": lambda rest: self._call(lambda: self._change(rest)),
        }

    async def _state(self) -> str:
        state = await self._talker.aget_session_state(self.session_id, user_id=self._user_id)
        return json.dumps(state, indent=2, ensure_ascii=False, default=_plain)

    async def past(self, limit: int | None = _PAST) -> str:
        """Return the conversation of the last `limit` runs (None: all); "" in a new session."""
        messages = await self._talker.aget_session_messages(
            self.session_id, user_id=self._user_id, limit=limit
        )
        lines = []
        for message in messages:
            text = (message.content or "").strip()
            if text and message.role in ("user", "assistant"):
                lines.append(f"> {text}" if message.role == "user" else f"{text}\n")
        return "\n".join(lines).rstrip()

    async def last(self) -> str:
        """Return the end of the conversation, for the beginning of a chat."""
        return await self._call(self.past)

    async def _sessions(self) -> str:
        found = await self._talker.alist_sessions(user_id=self._user_id, limit=_SESSIONS)
        if not found:
            return "There are no sessions yet."
        lines = [_line(info, here=info.session_id == self.session_id) for info in found]
        return "\n".join([*lines, "/session ID continues one of them."])

    async def _change(self, session_id: str) -> str:
        if not session_id.strip():
            return "/session needs the id of a session; /sessions lists them."
        before, self.session_id = self.session_id, session_id.strip()
        try:
            past = await self.past()
        except BaseException:
            self.session_id = before
            raise
        return past or "This session is new."


def _line(info: SessionInfo, *, here: bool) -> str:
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(info.updated_at))
    return f"{'*' if here else ' '} {when}  {info.session_id}{f'  {info.name}' if info.name else ''}"


def _plain(value: Any) -> Any:
    dump = getattr(value, "model_dump", None)
    return dump(mode="json") if callable(dump) else str(value)


def history_file() -> Path:
    """Return the file of the input history of chats, in the user's state folder (XDG base directories)."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "kern" / "chat"
