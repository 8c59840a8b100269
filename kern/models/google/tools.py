"""Tools that Google runs itself: they stand in the `tools` of an agent beside its own.

Source: https://ai.google.dev/api/caching#Tool
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from kern.errors import UsageError
from kern.tools.server_tool import ServerTool

API = "google-generate-content"


class GoogleTool(ServerTool):
    """A tool of Google's."""

    api: ClassVar[str] = API


@dataclass(frozen=True, slots=True)
class GoogleSearch(GoogleTool):
    """A search of the web. What the answer rests on are its citations.

    Args:
        time_range: Only pages of this time, from and to; not on Vertex AI.
        exclude_domains: Hosts that are left out; on Vertex AI only.
    """

    time_range: tuple[datetime, datetime] | None = None
    exclude_domains: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.time_range is not None and any(time.tzinfo is None for time in self.time_range):
            raise UsageError(
                "GoogleSearch(time_range=...) takes times with a zone: datetime(..., tzinfo=UTC)"
            )

    @property
    def name(self) -> str:
        """The tool's name."""
        return "google_search"

    def definition(self) -> dict[str, Any]:
        """The tool in a request."""
        settings: dict[str, Any] = {}
        if self.time_range is not None:
            start, end = self.time_range
            settings["timeRangeFilter"] = {"startTime": start.isoformat(), "endTime": end.isoformat()}
        if self.exclude_domains:
            settings["excludeDomains"] = list(self.exclude_domains)
        return {"googleSearch": settings}


@dataclass(frozen=True, slots=True)
class UrlContext(GoogleTool):
    """The pages whose addresses stand in the conversation are fetched and read."""

    @property
    def name(self) -> str:
        """The tool's name."""
        return "url_context"

    def definition(self) -> dict[str, Any]:
        """The tool in a request."""
        return {"urlContext": {}}


@dataclass(frozen=True, slots=True)
class CodeExecution(GoogleTool):
    """The model writes Python and has Google run it."""

    @property
    def name(self) -> str:
        """The tool's name."""
        return "code_execution"

    def definition(self) -> dict[str, Any]:
        """The tool in a request."""
        return {"codeExecution": {}}


@dataclass(frozen=True, slots=True)
class GoogleMaps(GoogleTool):
    """Places and routes."""

    @property
    def name(self) -> str:
        """The tool's name."""
        return "google_maps"

    def definition(self) -> dict[str, Any]:
        """The tool in a request."""
        return {"googleMaps": {}}


@dataclass(frozen=True, slots=True)
class FileSearch(GoogleTool):
    """A search of the documents in Google's file search stores; not on Vertex AI.

    Args:
        stores: Their names, such as ("fileSearchStores/my-store",).
        top_k: How many passages are found.
        metadata_filter: Which documents, such as 'author = "Ada"'.
    """

    stores: tuple[str, ...]
    top_k: int | None = None
    metadata_filter: str | None = None

    def __post_init__(self) -> None:
        stores: object = self.stores
        if not isinstance(stores, tuple) or not stores:
            raise UsageError("FileSearch(stores=...) takes a tuple of names: ('fileSearchStores/my-store',)")

    @property
    def name(self) -> str:
        """The tool's name."""
        return "file_search"

    def definition(self) -> dict[str, Any]:
        """The tool in a request."""
        settings: dict[str, Any] = {"fileSearchStoreNames": list(self.stores)}
        if self.top_k is not None:
            settings["topK"] = self.top_k
        if self.metadata_filter is not None:
            settings["metadataFilter"] = self.metadata_filter
        return {"fileSearch": settings}
