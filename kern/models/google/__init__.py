"""Google's Gemini models, and the tools that Google runs itself."""

from kern.models.google.gemini import Gemini
from kern.models.google.tools import (
    CodeExecution,
    FileSearch,
    GoogleMaps,
    GoogleSearch,
    GoogleTool,
    UrlContext,
)

__all__ = ["CodeExecution", "FileSearch", "Gemini", "GoogleMaps", "GoogleSearch", "GoogleTool", "UrlContext"]
