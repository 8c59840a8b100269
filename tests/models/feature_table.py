"""Which provider can what, and which test shows it: the data of the table in docs/models.md.

A cell names a test, and what feeds it: a file of shared/recorded ("recorded:openai-chat/citations"), or the
page of the documentation that a transcript was written from. What no test shows has no cell.

`python -m tests.models.feature_table` writes the table into the page.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from kern.models.servers import SERVERS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "models.md"
SERVERS_BEGIN = "<!-- servers: written by tests/models/feature_table.py -->"
SERVERS_END = "<!-- end of servers -->"
BEGIN, END = "<!-- features: written by tests/models/feature_table.py -->", "<!-- end of features -->"

FEATURES = (
    "text",
    "stream",
    "tools",
    "parallel tools",
    "structured",
    "reasoning carried on",
    "images",
    "files",
    "citations",
    "server tools",
    "caching",
    "usage",
    "cost",
    "errors",
)


class Cell(NamedTuple):
    """One proof.

    Args:
        test: "file.py::test_name", below tests/models.
        source: "recorded:folder/name", or the URL of a page.
    """

    test: str
    source: str


Row = dict[str, Cell]

DECODED = "test_recorded_traffic.py::test_what_a_provider_has_sent_is_decoded_as_the_body_says"
GOES_BACK = "test_recorded_replies.py::test_an_answer_goes_back_as_the_recorded_next_request_has_it"


def decoded(name: str) -> Cell:
    """A recorded answer is read as its body says."""
    return Cell(DECODED, f"recorded:{name}")


def goes_back(name: str) -> Cell:
    """A recorded answer goes back as the recorded next request has it."""
    return Cell(GOES_BACK, f"recorded:{name}")


def by_google(name: str) -> Cell:
    """A recorded answer of Google's is read as its body says."""
    test = "test_google_recorded.py::test_what_google_has_sent_is_decoded_as_the_body_says"
    return Cell(test, f"recorded:gemini/{name}")


_GOOGLE = "https://ai.google.dev/gemini-api/docs"
_RESPONSES = "https://platform.openai.com/docs/api-reference/responses"

_MESSAGES = "https://platform.claude.com/docs/en/api/messages"
_CACHING = "https://platform.claude.com/docs/en/build-with-claude/prompt-caching"
_REQUESTS = "test_anthropic_requests.py"


def by_anthropic(name: str) -> Cell:
    """A recorded answer of Anthropic's is read as its body says."""
    test = "test_anthropic_recorded.py::test_what_anthropic_has_sent_is_decoded_as_the_body_says"
    return Cell(test, f"recorded:anthropic/{name}")


ROWS: dict[str, Row] = {
    "OpenAI, Responses": {
        "text": Cell("test_openai_responses.py::test_without_stream_one_json_answer_is_read", _RESPONSES),
        "stream": decoded("openai-responses/reasoning-summary-stream"),
        "tools": decoded("openai-responses/reasoning-tool-session-1"),
        "parallel tools": decoded("openai-responses/stream-parallel-calls"),
        "structured": decoded("openai-responses/two-messages-same-json"),
        "reasoning carried on": goes_back("openai-responses/reasoning-tool-session-1"),
        "images": Cell("test_openai_responses.py::test_media_are_sent_as_urls_bytes_and_ids", _RESPONSES),
        "files": Cell("test_openai_responses.py::test_media_are_sent_as_urls_bytes_and_ids", _RESPONSES),
        "usage": decoded("openai-responses/reasoning-tool-session-1"),
        "errors": decoded("openai-responses/error-event"),
    },
    "Google, Gemini": {
        "text": by_google("url-context"),
        "stream": by_google("two-finishes-stream"),
        "tools": by_google("thought-signature-1"),
        "parallel tools": by_google("stream-parallel-calls"),
        "structured": Cell(
            "test_google_agents.py::test_an_answer_has_the_shape_that_was_asked_for",
            f"{_GOOGLE}/structured-output",
        ),
        "reasoning carried on": Cell(
            "test_google_recorded.py::test_an_answer_goes_back_as_the_recorded_next_request_has_it",
            "recorded:gemini/thought-signature-2",
        ),
        "images": Cell(
            "test_google_requests.py::test_media_go_inline_or_by_their_address",
            f"{_GOOGLE}/image-understanding",
        ),
        "files": Cell(
            "test_google_requests.py::test_media_go_inline_or_by_their_address",
            f"{_GOOGLE}/document-processing",
        ),
        "citations": by_google("grounding"),
        "server tools": by_google("thoughts-code-stream"),
        "caching": by_google("cache-by-modality"),
        "usage": by_google("cache-by-modality"),
        "errors": by_google("error-429"),
    },
    "Anthropic, Messages": {
        "text": by_anthropic("cache-read"),
        "stream": by_anthropic("citations-stream"),
        "tools": by_anthropic("thinking-call-stream-1"),
        "parallel tools": by_anthropic("stream-parallel-calls"),
        "structured": by_anthropic("structured"),
        "reasoning carried on": Cell(
            "test_anthropic_recorded.py::test_the_next_request_is_the_recorded_one",
            "recorded:anthropic/thinking-signed-2",
        ),
        "images": Cell(f"{_REQUESTS}::test_pictures_and_documents_as_bytes_urls_and_ids", _MESSAGES),
        "files": Cell(f"{_REQUESTS}::test_pictures_and_documents_as_bytes_urls_and_ids", _MESSAGES),
        "citations": by_anthropic("citations-pdf"),
        "server tools": by_anthropic("web-search-stream"),
        "caching": Cell(f"{_REQUESTS}::test_marks_by_hand_and_never_more_than_four", _CACHING),
        "usage": by_anthropic("cache-read"),
        "errors": by_anthropic("error-400"),
    },
}


def table() -> str:
    """The table as Markdown: a mark links to the file of its test, whose name and source it bears."""
    lines = [f"| | {' | '.join(FEATURES)} |", f"|---|{'---|' * len(FEATURES)}"]
    for title, row in ROWS.items():
        marks = [_mark(row[feature]) if feature in row else "" for feature in FEATURES]
        lines.append(f"| {title} | {' | '.join(marks)} |")
    return "\n".join(lines)


def _mark(cell: Cell) -> str:
    file, _, name = cell.test.partition("::")
    source = cell.source.removeprefix("recorded:")
    return f'[✓](../tests/models/{file} "{name}: {source}")'


def servers() -> str:
    """The lines of the chat servers as Markdown."""
    lines = [
        "| string | server | address | its variable | key | structured answers |",
        "|---|---|---|---|---|---|",
    ]
    for facts in SERVERS.values():
        string = "openai-chat" if facts.name == "openai" else facts.name
        keys = " or ".join(f"`{name}`" for name in facts.keys) + (
            "" if facts.needs_key else ", if it wants one"
        )
        ways = {"native": "by schema", "tool": "by a tool", "none": "in words"}
        way = ways[facts.structured_output]
        if facts.structured_output == "native" and facts.tools and not facts.schema_beside_tools:
            way += "; with tools by a tool"
        address = f"`{facts.base_url}`" if facts.base_url else ""
        variable = f"`{facts.url_variable}`"
        lines.append(
            f"| `{string}:...` | [{facts.title}]({facts.docs}) | {address} | {variable} | {keys} | {way} |"
        )
    return "\n".join(lines)


def written(page: str) -> str:
    """`page`, with the tables as they are now."""
    for begin, end, text in ((SERVERS_BEGIN, SERVERS_END, servers()), (BEGIN, END, table())):
        before, _, rest = page.partition(begin)
        page = f"{before}{begin}\n{text}\n{end}{rest.partition(end)[2]}"
    return page


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
