from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kern.tools.docstring import parse_docstring

GOOGLE = """Add an item to the list.

    It is put at the end.

    Args:
        item: The item, such as
            milk or bread.
        quantity (int): How many: one or more.
        tags (dict[str, list(int)], optional): Marks.
        note(str): Without a space.

        after_blank: Still an argument.
        *rest: Others.
        **options: Names and values.

    Returns:
        The whole list.

    Raises:
        ValueError: It is full.
"""

NUMPY = """Add an item to the list.

    Parameters
    ----------
    item : str
        The item, such as
        milk or bread.
    quantity : int, optional
        How many.
    left, right : float
        The edges.
    bare
        Without a type.
    **options
        Names and values.

    Returns
    -------
    list
        The whole list.
"""

SPHINX = """Add an item to the list.

    :param item: The item, such as
        milk or bread.
    :type item: str
    :param int quantity: How many: one or more.
    :param dict[str, int] | None tags: Marks.
    :keyword note: A note.
    :returns: The whole list.
"""


def test_google_style_gives_the_text_and_each_argument() -> None:
    doc = parse_docstring(GOOGLE)
    assert doc.parameters == {
        "item": "The item, such as milk or bread.",
        "quantity": "How many: one or more.",
        "tags": "Marks.",
        "note": "Without a space.",
        "after_blank": "Still an argument.",
        "rest": "Others.",
        "options": "Names and values.",
    }
    assert doc.description.startswith("Add an item to the list.\n\nIt is put at the end.\n\nReturns:\n")
    assert "milk" not in doc.description
    assert "The whole list." in doc.description


def test_numpy_style_gives_the_text_and_each_parameter() -> None:
    doc = parse_docstring(NUMPY)
    assert doc.parameters == {
        "item": "The item, such as milk or bread.",
        "quantity": "How many.",
        "left": "The edges.",
        "right": "The edges.",
        "bare": "Without a type.",
        "options": "Names and values.",
    }
    assert doc.description.startswith("Add an item to the list.\n\nReturns\n-------\nlist\n")


def test_sphinx_style_gives_the_text_and_each_param() -> None:
    doc = parse_docstring(SPHINX)
    assert doc.parameters == {
        "item": "The item, such as milk or bread.",
        "quantity": "How many: one or more.",
        "tags": "Marks.",
        "note": "A note.",
    }
    assert doc.description == "Add an item to the list.\n\n:returns: The whole list."


@pytest.mark.parametrize(
    ("text", "description", "parameters"),
    [
        (None, "", {}),
        ("", "", {}),
        ("One line.", "One line.", {}),
        ("Text.\n\nArgs:\n    x: X.", "Text.", {"x": "X."}),
        ("Args:\n    x: X.", "", {"x": "X."}),
        ("Text.\n\nArguments:\n    x: X.\n\nMore text.", "Text.\n\nMore text.", {"x": "X."}),
        ("Text.\n\nArgs:\n    x: X.\n\nKeyword Args:\n    y: Y.", "Text.", {"x": "X.", "y": "Y."}),
        ("Text.\n\nArgs:\n    x:\n        X\n\n        and more.", "Text.", {"x": "X and more."}),
        ("Args: this is a sentence.", "Args: this is a sentence.", {}),
        ("Parameters\nare nice.", "Parameters\nare nice.", {}),
        ("Parameters\n----------\nx : int\n    X.\n\nThen text, free.", "Then text, free.", {"x": "X."}),
        (":param x: X.\n\nText after.", "Text after.", {"x": "X."}),
        ("Text. See:\nx:\n    no argument.", "Text. See:\nx:\n    no argument.", {}),
        (
            "Text.\n\nArgs:\n    x: see https://example.org: it helps",
            "Text.",
            {"x": "see https://example.org: it helps"},
        ),
        ("Text.\n\nArgs:\n\tx: Tabs.\n\ty: Too.", "Text.", {"x": "Tabs.", "y": "Too."}),
    ],
)
def test_forms(text: str | None, description: str, parameters: dict[str, str]) -> None:
    doc = parse_docstring(text)
    assert (doc.description, doc.parameters) == (description, parameters)


@settings(deadline=None)
@given(st.text(alphabet=st.sampled_from("Args:\n -ParametersX:param x(int)*\t"), max_size=200))
def test_any_text_can_be_parsed(text: str) -> None:
    parse_docstring(text)


@settings(deadline=None)
@given(
    st.dictionaries(
        st.from_regex(r"[a-z_]{1,8}", fullmatch=True),
        st.from_regex(r"[A-Z][a-z ,.]{0,40}[a-z.]", fullmatch=True),
    )
)
def test_google_arguments_come_back_as_they_were_written(arguments: dict[str, str]) -> None:
    text = "Text.\n\nArgs:\n" + "".join(f"    {name}: {said}\n" for name, said in arguments.items())
    wanted = {name: " ".join(said.split(" ")) for name, said in arguments.items()}
    assert parse_docstring(text).parameters == wanted
