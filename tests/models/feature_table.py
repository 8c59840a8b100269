"""Which provider can what, and which test shows it: the data of the table in docs/models.md.

A cell names a test, and what feeds it: a file of shared/recorded ("recorded:openai-chat/citations"), or the
page of the documentation that a transcript was written from. What no test shows has no cell.

`python -m tests.models.feature_table` writes the table into the page.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from kern.models.servers import SERVERS, ChatServer

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


ONLY_NEXT = (
    "test_recorded_replies.py"
    "::test_an_answer_of_which_only_the_next_request_is_recorded_goes_back_as_it_has_it"
)


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


_TAKES = "test_what_servers_take_and_tell.py"


def cited(name: str) -> Cell:
    """What a recorded answer cites is what its body names."""
    return Cell(f"{_TAKES}::test_what_a_recorded_answer_cites_is_what_its_body_names", f"recorded:{name}")


_SEEING = {
    "openai": "https://platform.openai.com/docs/guides/images-vision",
    "azure": "https://learn.microsoft.com/azure/ai-foundry/openai/how-to/gpt-with-vision",
    "ollama": "https://docs.ollama.com/api/openai-compatibility",
    "vllm": "https://docs.vllm.ai/en/latest/features/multimodal_inputs.html",
    "llamacpp": "https://github.com/ggml-org/llama.cpp/blob/master/docs/multimodal.md",
    "lmstudio": "https://lmstudio.ai/docs/developer/openai-compat",
    "openrouter": "https://openrouter.ai/docs/features/multimodal/images",
    "groq": "https://console.groq.com/docs/vision",
    "mistral": "https://docs.mistral.ai/capabilities/vision",
    "xai": "https://docs.x.ai/docs/guides/image-understanding",
    "together": "https://docs.together.ai/docs/vision-overview",
    "fireworks": "https://docs.fireworks.ai/guides/querying-vision-language-models",
    "moonshot": "https://platform.moonshot.ai/docs/guide/use-kimi-vision-model",
    "perplexity": "https://docs.perplexity.ai/guides/image-attachments",
    "huggingface": "https://huggingface.co/docs/inference-providers/tasks/image-text-to-text",
    "litellm": "https://docs.litellm.ai/docs/completion/vision",
    "zai": "https://docs.z.ai/guides/vlm/glm-4.5v",
    "google-chat": "https://ai.google.dev/gemini-api/docs/openai",
}
"""Where servers say that they take pictures."""

_READING = {
    "openai": "https://platform.openai.com/docs/guides/pdf-files",
    "openrouter": "https://openrouter.ai/docs/features/multimodal/pdfs",
    "mistral": "https://docs.mistral.ai/capabilities/document_ai/document_qna",
    "perplexity": "https://docs.perplexity.ai/guides/file-attachments",
    "litellm": "https://docs.litellm.ai/docs/completion/document_understanding",
}
"""Where servers say that they take files."""

_CITING = {
    "openai": cited("openai-chat/citations"),
    "openrouter": cited("openrouter/annotations"),
    "perplexity": cited("perplexity/citations"),
    "xai": Cell(
        f"{_TAKES}::test_the_pages_that_xai_names_beside_its_text_are_citations",
        "https://docs.x.ai/docs/guides/live-search",
    ),
}

_GOOGLE = "https://ai.google.dev/gemini-api/docs"
_RESPONSES = "https://platform.openai.com/docs/api-reference/responses"

_MESSAGES = "https://platform.claude.com/docs/en/api/messages"
_CACHING = "https://platform.claude.com/docs/en/build-with-claude/prompt-caching"
_REQUESTS = "test_anthropic_requests.py"


def by_anthropic(name: str) -> Cell:
    """A recorded answer of Anthropic's is read as its body says."""
    test = "test_anthropic_recorded.py::test_what_anthropic_has_sent_is_decoded_as_the_body_says"
    return Cell(test, f"recorded:anthropic/{name}")


_BEDROCK = "https://docs.aws.amazon.com/bedrock/latest/userguide"
_CONVERSE = "https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime"


def by_bedrock(name: str) -> Cell:
    """A recorded answer of Bedrock's is read as its body says."""
    test = "test_bedrock_recorded.py::test_what_bedrock_has_sent_is_decoded_as_the_body_says"
    return Cell(test, f"recorded:bedrock/{name}")


_SERVERS = "test_servers.py::"
_RECORDED: dict[str, Row] = {
    "openai": {
        "text": decoded("openai-chat/citations"),
        "stream": decoded("openai-chat/stream-parallel-calls"),
        "parallel tools": decoded("openai-chat/stream-parallel-calls"),
        "caching": decoded("openai-chat/cache-write"),
        "usage": decoded("openai-chat/cache-write"),
    },
    "azure": {
        "stream": decoded("azure/stream-filter-results"),
        "errors": decoded("azure/prompt-filtered"),
    },
    "ollama": {
        "stream": decoded("ollama/reasoning-call-stream"),
        "tools": decoded("ollama/reasoning-call-stream"),
    },
    "llamacpp": {
        "stream": decoded("llamacpp/unicode-across-chunks"),
        "errors": decoded("llamacpp/error-500"),
        "caching": decoded("llamacpp/unicode-across-chunks"),
    },
    "openrouter": {
        "text": decoded("openrouter/annotations"),
        "tools": decoded("openrouter/signed-reasoning-1"),
        "reasoning carried on": goes_back("openrouter/signed-reasoning-1"),
        "usage": decoded("openrouter/annotations"),
        "cost": decoded("openrouter/annotations"),
        "errors": decoded("openrouter/error-429-raw"),
    },
    "groq": {
        "stream": decoded("groq/web-search-stream"),
        "tools": decoded("groq/null-arguments"),
        "server tools": Cell(
            f"{_TAKES}::test_what_groq_has_run_itself_is_a_call_of_the_providers",
            "recorded:groq/web-search-stream",
        ),
        "usage": decoded("groq/web-search-stream"),
        "errors": decoded("groq/tool-use-failed"),
    },
    "mistral": {
        "text": decoded("mistral/thinking"),
        "stream": decoded("mistral/thinking-stream"),
        "reasoning carried on": Cell(ONLY_NEXT, "recorded:mistral/thinking-replayed"),
        "caching": decoded("mistral/cached-tokens"),
        "usage": decoded("mistral/cached-tokens"),
        "errors": decoded("mistral/error-model"),
    },
    "deepseek": {
        "tools": decoded("deepseek/reasoning-tool-1"),
        "reasoning carried on": goes_back("deepseek/reasoning-tool-1"),
        "usage": decoded("deepseek/reasoning-tool-1"),
        "caching": decoded("deepseek/reasoning-tool-2"),
    },
    "xai": {
        "stream": decoded("xai/call-stream"),
        "tools": decoded("xai/call-stream"),
        "caching": decoded("xai/call-stream"),
        "usage": decoded("xai/call-stream"),
        "cost": decoded("xai/call-stream"),
        "errors": decoded("xai/error-auth-400"),
    },
    "perplexity": {
        "text": decoded("perplexity/citations"),
        "usage": decoded("perplexity/citations"),
        "cost": decoded("perplexity/citations"),
    },
    "cerebras": {
        "stream": decoded("cerebras/two-calls-one-index"),
        "parallel tools": decoded("cerebras/two-calls-one-index"),
        "caching": decoded("cerebras/two-calls-one-index"),
    },
    "moonshot": {
        "caching": decoded("moonshot/cached-tokens"),
        "usage": decoded("moonshot/cached-tokens"),
    },
    "zai": {
        "text": decoded("zai/preserved-thinking-2"),
        "reasoning carried on": Cell(ONLY_NEXT, "recorded:zai/preserved-thinking-2"),
    },
    "google-chat": {
        "tools": decoded("gemini-compat/calls-without-id"),
        "usage": decoded("gemini-compat/calls-without-id"),
    },
}
"""What recorded exchanges show of the chat servers; the rest is shown by transcripts from their pages."""


def chat_row(facts: ChatServer) -> Row:
    """The row of a chat server: what is recorded of it, and what tests/models/test_servers.py shows of it."""
    played = f"{_SERVERS}test_a_run_calls_tools_in_parallel_and_answers"
    structured = f"{_SERVERS}test_a_structured_answer_is_had_as_the_server_does_it_best"
    reasoning = f"{_SERVERS}test_reasoning_goes_back_to_its_server_in_the_form_that_it_takes"
    tests = {
        "text": structured,
        **(dict.fromkeys(("stream", "tools", "parallel tools"), played) if facts.tools else {}),
        "structured": structured,
        **({} if facts.reasoning is None else {"reasoning carried on": reasoning}),
        "usage": f"{_SERVERS}test_usage_counts_all_that_was_generated",
        "errors": f"{_SERVERS}test_an_error_names_the_server_that_was_asked_and_holds_what_it_said",
    }
    listed = "../test_prices.py::test_the_list_knows_what_the_models_of_providers_cost"
    if facts.name in ("openai", "azure"):
        tests["cost"] = listed
    row = {feature: Cell(test, facts.docs) for feature, test in tests.items()}
    if page := _SEEING.get(facts.name):
        row["images"] = Cell(f"{_TAKES}::test_pictures_are_sent_as_the_server_takes_them", page)
    if page := _READING.get(facts.name):
        row["files"] = Cell(f"{_TAKES}::test_files_are_sent_as_the_server_takes_them", page)
    if cell := _CITING.get(facts.name):
        row["citations"] = cell
    return row | _RECORDED.get(facts.name, {})


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
        "citations": cited("openai-responses/web-search-1"),
        "server tools": Cell(
            "test_openai_server_tools.py::test_their_calls_are_parts_in_their_places",
            "https://platform.openai.com/docs/guides/tools",
        ),
        "caching": Cell(
            "test_openai_responses.py::test_text_is_streamed_piece_by_piece_and_returned_whole",
            "https://platform.openai.com/docs/guides/prompt-caching",
        ),
        "usage": decoded("openai-responses/reasoning-tool-session-1"),
        "cost": Cell(
            "../test_prices.py::test_the_list_knows_what_the_models_of_providers_cost",
            "https://openai.com/api/pricing",
        ),
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
        "cost": Cell(
            "test_what_is_billed.py::test_what_has_a_price_of_its_own_is_paid_for", f"{_GOOGLE}/pricing"
        ),
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
        "cost": Cell(
            "test_anthropic_recorded.py::test_a_recorded_answer_costs_what_the_list_says",
            "recorded:anthropic/cache-read",
        ),
        "errors": by_anthropic("error-400"),
    },
    "Amazon Bedrock, Converse": {
        "text": by_bedrock("thinking-call-2"),
        "stream": by_bedrock("stream-call"),
        "tools": by_bedrock("thinking-call-1"),
        "parallel tools": Cell(
            "test_bedrock_agents.py::test_a_run_calls_tools_in_parallel_and_answers",
            f"{_BEDROCK}/tool-use-inference-call.html",
        ),
        "structured": Cell(
            "test_bedrock_agents.py::test_a_structured_answer_is_had_by_schema_or_by_a_tool",
            f"{_BEDROCK}/structured-output.html",
        ),
        "reasoning carried on": Cell(
            "test_bedrock_recorded.py::test_the_next_request_to_bedrock_is_the_recorded_one",
            "recorded:bedrock/thinking-call-2",
        ),
        "images": Cell(
            "test_bedrock_requests.py::test_media_are_bytes_or_lie_in_s3", f"{_CONVERSE}_ImageBlock.html"
        ),
        "files": Cell(
            "test_bedrock_requests.py::test_media_are_bytes_or_lie_in_s3", f"{_CONVERSE}_DocumentBlock.html"
        ),
        "citations": by_bedrock("citations-stream"),
        "server tools": by_bedrock("nova-grounding"),
        "caching": Cell(
            "test_bedrock_requests.py::test_cache_points_by_hand_and_never_more_than_four",
            f"{_BEDROCK}/prompt-caching.html",
        ),
        "usage": by_bedrock("thinking-call-1"),
        "cost": Cell(
            "test_bedrock_recorded.py::test_a_recorded_answer_of_bedrocks_costs_what_the_list_says",
            "recorded:bedrock/thinking-call-1",
        ),
        "errors": by_bedrock("guardrail"),
    },
    **{
        "OpenAI, Chat" if facts.name == "openai" else facts.title: chat_row(facts)
        for facts in SERVERS.values()
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
    path = f"tests/models/{file}".replace("models/../", "")
    return f'[✓](../{path} "{name}: {source}")'


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
