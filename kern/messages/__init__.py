"""The messages of a conversation and their parts: plain data, in the same form for every provider."""

from kern.messages._checks import as_stored, check_types, readable
from kern.messages._views import BREAK, number_citations, placed_citations
from kern.messages.media import MEDIA, Audio, File, Image, Media, Shelf, Video, media_by_kind
from kern.messages.message import ROLES, Message, Role, with_context
from kern.messages.origin import CacheMark, Origin
from kern.messages.parts import (
    CallStatus,
    Citation,
    Part,
    ProviderCall,
    ReasoningPart,
    TextPart,
    ToolCall,
)

__all__ = [
    "BREAK",
    "MEDIA",
    "ROLES",
    "Audio",
    "CacheMark",
    "CallStatus",
    "Citation",
    "File",
    "Image",
    "Media",
    "Message",
    "Origin",
    "Part",
    "ProviderCall",
    "ReasoningPart",
    "Role",
    "Shelf",
    "TextPart",
    "ToolCall",
    "Video",
    "as_stored",
    "check_types",
    "media_by_kind",
    "number_citations",
    "placed_citations",
    "readable",
    "with_context",
]
