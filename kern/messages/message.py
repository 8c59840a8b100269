"""`Message`: one message of a conversation as an ordered list of parts, in the same form for every
provider.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import Field, dataclass, fields, replace
from enum import Enum
from typing import Any, ClassVar, Final, Literal, NoReturn, TypeVar, get_args

from kern.errors import UsageError
from kern.messages import _rows, _views
from kern.messages._checks import FLAG, RECORD, TEXT, Types, check_types, readable
from kern.messages._views import PartsView
from kern.messages.media import Audio, File, Image, Media, Shelf, Video
from kern.messages.origin import CacheMark, cache_in
from kern.messages.parts import Part, ProviderCall, TextPart, ToolCall
from kern.usage import Usage

Role = Literal["system", "developer", "user", "assistant", "tool"]
ROLES: tuple[str, ...] = get_args(Role)


class _Unset(Enum):
    UNSET = "not given"


_UNSET: Final[Any] = _Unset.UNSET
C = TypeVar("C")


def _record(cls: type[C]) -> type[C]:
    """Make a dataclass. Under this name, type checkers allow `dataclasses.replace` to set the views, too."""
    return dataclass(slots=True, init=False, repr=False)(cls)


@_record
class Message:
    """One message of a conversation: an ordered list of `parts`.

    The other texts and lists are views of the parts: `content` is the text, `reasoning_content` the visible
    reasoning, and `commentary` what the model said about its work; `tool_calls`, `provider_calls`, `images`,
    `audio`, `videos` and `files` are lists of the parts of that kind. Setting a view, or changing such a
    list, changes the parts. Without `parts`, the message gets its parts from the views, in the order
    reasoning, commentary, content, media, tool calls. With both, the views replace the parts of their kind.

    Args:
        role: Who speaks: "system", "developer", "user", "assistant" or "tool".
        content: The text.
        parts: The parts, in order.
        reasoning_content: The model's reasoning, as far as the provider shows it.
        commentary: What the model said about its work, if the provider keeps it apart from the answer.
        said: The part of `content` to show in later prompts and in the chat history. It is set where the
            application added to the text (dependencies, the context of a task), or wrote all of it ("", as
            for examples and corrections to the model). None: all of `content`.
        tool_calls: The tool calls of an assistant message.
        tool_call_id: Of a tool message: the id of the call that it answers.
        tool_name: Of a tool message: the tool's name.
        tool_call_error: Of a tool message: the call failed.
        stop_after_tool_call: Of a tool message: the run ended after it.
        name: The speaker's name, where several share a role.
        images, audio, videos, files: Media.
        provider_data: Data to send back to a provider with the message, by provider.
        usage: Of an assistant message: what the request used.
        created_at: When the message was made, in seconds since the epoch.
        from_history: It comes from an earlier run of the session.
        cache: The provider may cache the prompt up to the end of this message, for this time.
    """

    role: Role
    parts: list[Part]
    tool_call_id: str | None
    tool_name: str | None
    tool_call_error: bool
    stop_after_tool_call: bool
    name: str | None
    provider_data: dict[str, Any] | None
    usage: Usage | None
    created_at: int | None
    from_history: bool
    said: str | None
    cache: CacheMark | None

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    def __init__(
        self,
        role: Role,
        content: str | None = _UNSET,
        *,
        parts: Sequence[Part] | None = None,
        reasoning_content: str | None = _UNSET,
        commentary: str | None = _UNSET,
        tool_calls: Sequence[ToolCall] = _UNSET,
        tool_call_id: str | None = None,
        tool_name: str | None = None,
        tool_call_error: bool = False,
        stop_after_tool_call: bool = False,
        name: str | None = None,
        images: Sequence[Image] = _UNSET,
        audio: Sequence[Audio] = _UNSET,
        videos: Sequence[Video] = _UNSET,
        files: Sequence[File] = _UNSET,
        provider_data: dict[str, Any] | None = None,
        usage: Usage | None = None,
        created_at: int | None = None,
        from_history: bool = False,
        said: str | None = None,
        cache: CacheMark | None = None,
    ) -> None:
        self.role = role if role in ROLES else _refused(role)
        self.tool_call_id = tool_call_id
        self.tool_name = tool_name
        self.tool_call_error = tool_call_error
        self.stop_after_tool_call = stop_after_tool_call
        self.name = name
        self.provider_data = provider_data
        self.usage = usage
        self.created_at = created_at
        self.from_history = from_history
        self.said = said
        self.cache = cache
        made: list[Part] = [] if parts is None else list(parts)
        self.parts = made
        if content is not _UNSET:
            if type(content) is str and not made:
                made.append(TextPart(content))
            elif content is not None or made:
                _views.put_text(made, content, commentary=False)
        if commentary is not _UNSET:
            _views.put_text(made, commentary, commentary=True)
        if reasoning_content is not _UNSET:
            _views.put_reasoning(made, reasoning_content)
        # Each setter puts its parts behind those that are there already.
        if images is not _UNSET:
            self.images = images
        if audio is not _UNSET:
            self.audio = audio
        if videos is not _UNSET:
            self.videos = videos
        if files is not _UNSET:
            self.files = files
        if tool_calls is not _UNSET and (tool_calls or parts is not None):
            self.tool_calls = tool_calls

    def __repr__(self) -> str:
        """The fields that are set."""
        shown: list[tuple[str, Any]] = [("role", self.role)]
        if not self.parts or _rows.is_plain(self.parts, _rows.maker(self.parts)):
            shown += [(name, getattr(self, name)) for name in _VIEWS]
        else:
            shown.append(("parts", self.parts))
        shown += [(f.name, getattr(self, f.name)) for f in fields(self) if f.name not in ("role", "parts")]
        return f"Message({', '.join(f'{name}={value!r}' for name, value in shown if value)})"

    @property
    def is_text(self) -> bool:
        """Whether all parts are text; if so, the views of reasoning, calls and media are empty."""
        for part in self.parts:  # noqa: SIM110 - a generator costs more than the loop
            if type(part) is not TextPart:
                return False
        return True

    @property
    def content(self) -> str | None:
        """The text, without commentary; None if the message has none."""
        parts = self.parts
        if len(parts) == 1 and isinstance(part := parts[0], TextPart) and not part.commentary:
            return part.text
        return _views.text_of(parts, commentary=False)

    @content.setter
    def content(self, text: str | None) -> None:
        _views.put_text(self.parts, text, commentary=False)

    @property
    def commentary(self) -> str | None:
        """What the model said about its work, if the provider keeps it apart from the answer."""
        return _views.text_of(self.parts, commentary=True)

    @commentary.setter
    def commentary(self, text: str | None) -> None:
        _views.put_text(self.parts, text, commentary=True)

    @property
    def reasoning_content(self) -> str | None:
        """The model's reasoning, as far as the provider shows it; None if it shows none."""
        return _views.reasoning_of(self.parts)

    @reasoning_content.setter
    def reasoning_content(self, text: str | None) -> None:
        _views.put_reasoning(self.parts, text)

    @property
    def tool_calls(self) -> list[ToolCall]:
        """The tool calls of an assistant message."""
        return PartsView(self.parts, ToolCall)

    @tool_calls.setter
    def tool_calls(self, calls: Sequence[ToolCall]) -> None:
        _put(self.parts, ToolCall, calls)

    @property
    def provider_calls(self) -> list[ProviderCall]:
        """The calls that the provider ran itself."""
        return PartsView(self.parts, ProviderCall)

    @property
    def images(self) -> list[Image]:
        """The images."""
        return PartsView(self.parts, Image)

    @images.setter
    def images(self, items: Sequence[Image]) -> None:
        _put(self.parts, Image, items)

    @property
    def audio(self) -> list[Audio]:
        """The audio."""
        return PartsView(self.parts, Audio)

    @audio.setter
    def audio(self, items: Sequence[Audio]) -> None:
        _put(self.parts, Audio, items)

    @property
    def videos(self) -> list[Video]:
        """The videos."""
        return PartsView(self.parts, Video)

    @videos.setter
    def videos(self, items: Sequence[Video]) -> None:
        _put(self.parts, Video, items)

    @property
    def files(self) -> list[File]:
        """The documents."""
        return PartsView(self.parts, File)

    @files.setter
    def files(self, items: Sequence[File]) -> None:
        _put(self.parts, File, items)

    @property
    def media(self) -> list[Media]:
        """All media in order, including those that calls of the provider made."""
        return _views.media_of(self.parts)

    def plain(self) -> Message:
        """A copy without ids, signatures and other data for a provider.

        Use it for a message that was changed: such data belongs to the original text.
        """
        parts = [plain for part in self.parts if (plain := _views.plain(part)) is not None]
        return replace(self, parts=parts, provider_data=None)

    def loaded(self) -> Message:
        """A copy with the bytes of all files that it refers to (blocking); itself if there are none.

        Raises:
            UsageError: A file cannot be read.
        """
        if all(media.filepath is None for media in self.media):
            return self
        return replace(
            self, parts=[part.loaded() if isinstance(part, Media) else part for part in self.parts]
        )

    def to_dict(self, shelf: Shelf | None = None) -> dict[str, Any]:
        """The message as JSON, without empty fields; `Media.to_dict` writes the bytes of media."""
        # Spelled out: this runs for each message of each run, and a loop over names costs far more.
        data: dict[str, Any] = {"role": self.role if self.role in ROLES else "user"}
        parts = self.parts
        if (
            len(parts) == 1  # as of most messages: one text, with nothing more to say of it
            and type(part := parts[0]) is TextPart
            and not (part.citations or part.paragraph or part.provider_data is not None)
        ):
            data["commentary" if part.commentary else "content"] = part.text
            if part.origin is not None:
                data["origin"] = list(part.origin)
        elif parts:
            _rows.put_parts(data, parts, shelf)
        if self.said is not None:
            data["said"] = self.said
        if self.tool_call_id is not None:
            data["tool_call_id"] = self.tool_call_id
            data["tool_name"] = self.tool_name
        if self.tool_call_error:
            data["tool_call_error"] = True
        if self.stop_after_tool_call:
            data["stop_after_tool_call"] = True
        if self.name is not None:
            data["name"] = self.name
        if self.provider_data is not None:
            data["provider_data"] = self.provider_data
        if self.created_at is not None:
            data["created_at"] = self.created_at
        if self.from_history:
            data["from_history"] = True
        if self.cache is not None:
            data["cache"] = self.cache
        if isinstance(self.usage, Usage):
            data["usage"] = self.usage.to_dict()
        for name, value in data.items():
            if not isinstance(value, _MESSAGE_TYPES[name]):
                return readable("Message", data, _MESSAGE_TYPES)
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Message:
        """The reverse of `to_dict`.

        Raises:
            ValueError: A value is not of its type.
        """
        check_types(cls.__name__, data, _MESSAGE_TYPES)
        if data["role"] not in ROLES:
            raise ValueError(f"Message: role must be one of {', '.join(ROLES)}, not {data['role']!r}")
        values = {name: data[name] for name in ("role", *_PLAIN) if name in data}
        values["parts"] = _rows.parts_from_dict(data)
        if "cache" in data:
            values["cache"] = cache_in(data)
        if "usage" in data:
            values["usage"] = Usage.from_dict(data["usage"])
        return cls(**values)


def _refused(role: object) -> NoReturn:
    raise UsageError(f"Message: role must be one of {', '.join(ROLES)}, not {role!r:.60}")


def _put(parts: list[Part], kind: type[Part], items: Sequence[Part]) -> None:
    new = list(items)  # a copy: `items` may be a view of these very parts
    if new or parts:
        _views.put(parts, lambda part: isinstance(part, kind), new)


_VIEWS = (
    *("content", "reasoning_content", "commentary", "tool_calls"),
    *("images", "audio", "videos", "files"),
)
_PLAIN = (
    *("said", "tool_call_id", "tool_name", "tool_call_error", "stop_after_tool_call"),
    *("name", "provider_data", "created_at", "from_history"),
)
_MESSAGE_TYPES: Types = {
    "role": str,
    **dict.fromkeys(
        ("content", "reasoning_content", "commentary", "said", "tool_call_id", "tool_name", "name"), TEXT
    ),
    **dict.fromkeys(("tool_call_error", "stop_after_tool_call", "from_history"), FLAG),
    **dict.fromkeys(("tool_calls", "images", "audio", "videos", "files", "parts"), list),
    "provider_data": RECORD,
    "created_at": (int, float, type(None)),
    "origin": (list, type(None)),
    "usage": dict,
    "cache": object,
}


def with_context(messages: Sequence[Message], *, before: str = "", after: str = "") -> list[Message]:
    """The messages with text of the application added before or after the last user message's text."""
    if not before and not after:
        return list(messages)
    at = max((at for at, message in enumerate(messages) if message.role == "user"), default=len(messages) - 1)
    asked = messages[at]
    if asked.role != "user" or not asked.content:
        return [*messages[:at], Message("user", before or after, said=""), *messages[at:]]
    content = "\n\n".join(text for text in (before, asked.content, after) if text)
    said = asked.content if asked.said is None else asked.said
    return [*messages[:at], replace(asked, content=content, said=said), *messages[at + 1 :]]
