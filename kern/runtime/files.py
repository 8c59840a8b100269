"""Reads the files that messages and tool results refer to, once, when a run gets them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from kern._sync.threads import threads
from kern.messages import Media, Message

T = TypeVar("T", Media, Message)


async def loaded(items: Sequence[T]) -> list[T]:
    """Return messages or media with the bytes of the files that they refer to.

    Raises:
        UsageError: A file cannot be read.
    """
    each: Sequence[Media | Message] = items
    for item in each:
        if isinstance(item, Message) and item.is_text:
            continue
        for media in (item,) if isinstance(item, Media) else item.media:
            if media.filepath is not None:
                return await threads.run(lambda: [item.loaded() for item in items])
    return list(items)
