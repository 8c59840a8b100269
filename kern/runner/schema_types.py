"""What `output_schema` takes, for type checkers: a class gives `content` its type, other forms give Any."""

from __future__ import annotations

from collections.abc import KeysView
from typing import Any, Protocol, TypeAlias, TypeVar

from kern.run.output import ContentT

T_co = TypeVar("T_co", covariant=True)
T_contra = TypeVar("T_contra", contravariant=True)

# Type checkers do not see which type an object such as `A | B` stands for: to them it is an instance of
# `UnionType`. Each protocol matches one kind of these objects by a member whose type is Any, so that the
# type variable is Any as well, and not its default `str`. No protocol matches a class.


class UnionOfTypes(Protocol[T_co]):
    """`A | B`."""

    @property
    def __args__(self) -> tuple[T_co, ...]: ...


class SpecialForm(Protocol[T_contra]):
    """`Literal["a", "b"]`, `Optional[A]`, `Union[A, B]`."""

    def __getitem__(self, parameters: type[Any], /) -> object: ...
    def __or__(self, other: T_contra, /) -> object: ...


class NamedAlias(Protocol[T_co]):
    """What a `type` statement of Python 3.12 makes."""

    @property
    def __value__(self) -> T_co: ...


class JsonSchema(Protocol[T_contra]):
    """A JSON schema: a mapping."""

    def keys(self) -> KeysView[str]:
        """See `dict.keys`."""
        ...

    def __setattr__(self, name: str, value: T_contra, /) -> None: ...


SchemaOf: TypeAlias = (
    type[ContentT]
    | UnionOfTypes[ContentT]
    | SpecialForm[ContentT]
    | NamedAlias[ContentT]
    | JsonSchema[ContentT]
)
"""The types of a constructor's `output_schema`."""

OutputSchema: TypeAlias = SchemaOf[Any]
"""The types of a run's `output_schema`."""
