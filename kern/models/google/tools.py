"""The tools that Google runs itself, for the `tools` of an agent.

Source: https://ai.google.dev/api/caching#Tool
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from kern._numbers import check_whole
from kern.errors import UsageError
from kern.tools.server_tool import ServerTool

API = "google-generate-content"


class GoogleTool(ServerTool):
    """The base class of tools that Google runs."""

    api: ClassVar[str] = API


@dataclass(frozen=True, slots=True)
class GoogleSearch(GoogleTool):
    """Lets the model search the web; the answer cites its sources.

    Args:
        time_range: Only pages from this period, given by its start and end; not on Vertex AI.
        exclude_domains: Hosts to leave out; on Vertex AI only.
    """

    time_range: tuple[datetime, datetime] | None = None
    exclude_domains: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.time_range is not None and any(time.tzinfo is None for time in self.time_range):
            raise UsageError(
                "GoogleSearch(time_range=...) needs times with a time zone: datetime(..., tzinfo=UTC)"
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
    """Lets the model read the pages whose URLs occur in the conversation."""

    @property
    def name(self) -> str:
        """The tool's name."""
        return "url_context"

    def definition(self) -> dict[str, Any]:
        """The tool in a request."""
        return {"urlContext": {}}


@dataclass(frozen=True, slots=True)
class CodeExecution(GoogleTool):
    """Lets the model run Python at Google."""

    @property
    def name(self) -> str:
        """The tool's name."""
        return "code_execution"

    def definition(self) -> dict[str, Any]:
        """The tool in a request."""
        return {"codeExecution": {}}


@dataclass(frozen=True, slots=True)
class GoogleMaps(GoogleTool):
    """Lets the model look up places and routes in Google Maps."""

    @property
    def name(self) -> str:
        """The tool's name."""
        return "google_maps"

    def definition(self) -> dict[str, Any]:
        """The tool in a request."""
        return {"googleMaps": {}}


@dataclass(frozen=True, slots=True)
class FileSearch(GoogleTool):
    """Lets the model search the documents in Google's file search stores; not on Vertex AI.

    Args:
        stores: The names of the stores, such as ("fileSearchStores/my-store",).
        top_k: How many passages the model receives.
        metadata_filter: A condition on the documents' metadata, such as 'author = "Ada"'.
    """

    stores: tuple[str, ...]
    top_k: int | None = None
    metadata_filter: str | None = None

    def __post_init__(self) -> None:
        stores: object = self.stores
        if not isinstance(stores, tuple) or not stores:
            raise UsageError(
                "FileSearch(stores=...) must be a tuple of names: ('fileSearchStores/my-store',)"
            )
        if self.top_k is not None:
            check_whole("FileSearch: top_k", self.top_k, 1)

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
