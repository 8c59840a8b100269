"""Converts the annotations of an answer to citations, for both protocols."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kern.messages import Citation
from kern.models._reading import text_of

_MOST = 2**53  # a larger number is not a position in a text


def citation(annotation: Mapping[str, Any], offset: int) -> Citation | None:
    """The citation for an annotation of a text; None if the annotation names no source.

    Args:
        annotation: The annotation.
        offset: How many characters of the part come before the annotated text.
    """
    url, file_id = (text_of(annotation.get(name)) or None for name in ("url", "file_id"))
    if url is None and file_id is None:
        return None
    start, end = _place(annotation, "start_index"), _place(annotation, "end_index")
    if start is None and end is None:
        start = end = _place(annotation, "index")  # of a file: the position of the mark in the text
    if start is not None and end is not None and start > end:
        start = end = None
    container = text_of(annotation.get("container_id"))
    return Citation(
        url=url,
        title=text_of(annotation.get("title") or annotation.get("filename")) or None,
        start=None if start is None else start + offset,
        end=None if end is None else end + offset,
        file_id=file_id,
        provider_data={"container_id": container} if container else None,
    )


def listed(source: Mapping[str, Any]) -> Citation | None:
    """The citation for a source in an answer's list; None if the source has neither an address nor a title.

    Perplexity lists the documents of the request without an address. They count: its texts cite by number.
    """
    if (made := citation(source, 0)) is not None:
        return made
    title = text_of(source.get("title"))
    return Citation(title=title, text=text_of(source.get("snippet")) or None) if title else None


def _place(annotation: Mapping[str, Any], name: str) -> int | None:
    value = annotation.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST else None
