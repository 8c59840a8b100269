"""The servers that support Chat Completions, as data: their addresses, and how each differs.

The protocol is OpenAI's. No other server supports all of it, and some refuse a request because of one unknown
field. `kern.models.openai.OpenAIChat` reads these differences and has no code for a particular server.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from kern.errors import UsageError
from kern.models._chat_server import SETTINGS, ChatServer

__all__ = ["OTHER", "SERVERS", "SETTINGS", "ChatServer", "server_at", "server_named"]

OTHER: Final = ChatServer(
    name="openai",
    title="Any other server",
    docs="https://platform.openai.com/docs/api-reference/chat",
    keys=("OPENAI_API_KEY",),
    needs_key=False,
    url_variable="OPENAI_BASE_URL",
    spelled={"max_output_tokens": "max_tokens"},
    searching="-search-",
    price_list="openai",
)
"""An unknown server: what nearly all servers support."""

_MAX_TOKENS: Final = {"max_output_tokens": "max_tokens"}
_MAX_COMPLETION_TOKENS: Final = {"max_output_tokens": "max_completion_tokens"}
_LOCAL: Final = SETTINGS - {"store", "verbosity"}

_ALL: Final = (
    ChatServer(
        name="openai",
        title="OpenAI",
        docs="https://platform.openai.com/docs/api-reference/chat/create",
        base_url="https://api.openai.com/v1",
        hosts=("openai.com",),
        keys=("OPENAI_API_KEY",),
        url_variable="OPENAI_BASE_URL",
        spelled=_MAX_COMPLETION_TOKENS,
        developer_role=True,
        searching="-search-",
        price_list="openai",
    ),
    ChatServer(
        name="azure",
        title="Azure OpenAI",
        docs="https://learn.microsoft.com/azure/ai-foundry/openai/api-version-lifecycle",
        path="/openai/v1",
        hosts=("openai.azure.com", "services.ai.azure.com"),
        keys=("AZURE_OPENAI_API_KEY",),
        needs_key=False,  # Entra ID's tokens come in default_headers
        key_header="api-key",
        url_variable="AZURE_OPENAI_ENDPOINT",
        spelled=_MAX_COMPLETION_TOKENS,
        developer_role=True,
        searching="-search-",
        price_list="azure",
    ),
    ChatServer(
        name="ollama",
        title="Ollama",
        docs="https://docs.ollama.com/api/openai-compatibility",
        base_url="http://localhost:11434/v1",
        hosts=("ollama.com",),
        keys=("OLLAMA_API_KEY",),
        needs_key=False,
        url_variable="OLLAMA_BASE_URL",
        settings=_LOCAL - {"parallel_tool_calls"},
        spelled=_MAX_TOKENS,
        schema_beside_tools=False,
        strict=False,
        tool_choices=frozenset({"auto"}),
        reasoning="reasoning",
    ),
    ChatServer(
        name="vllm",
        title="vLLM",
        docs="https://docs.vllm.ai/en/latest/serving/openai_compatible_server/",
        base_url="http://localhost:8000/v1",
        keys=("VLLM_API_KEY",),
        needs_key=False,
        url_variable="VLLM_BASE_URL",
        settings=_LOCAL,
        spelled=_MAX_TOKENS,
        schema_beside_tools=False,
    ),
    ChatServer(
        name="llamacpp",
        title="llama.cpp",
        docs="https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md",
        base_url="http://localhost:8080/v1",
        keys=("LLAMA_API_KEY",),
        needs_key=False,
        url_variable="LLAMACPP_BASE_URL",
        settings=_LOCAL,
        spelled=_MAX_TOKENS,
        schema_beside_tools=False,
        tool_choices=frozenset({"auto", "none", "required"}),
        reasoning="reasoning_content",
    ),
    ChatServer(
        name="lmstudio",
        title="LM Studio",
        docs="https://lmstudio.ai/docs/developer/openai-compat",
        base_url="http://localhost:1234/v1",
        keys=("LMSTUDIO_API_KEY",),
        needs_key=False,
        url_variable="LMSTUDIO_BASE_URL",
        settings=_LOCAL - {"parallel_tool_calls"},
        spelled=_MAX_TOKENS,
        schema_beside_tools=False,
        tool_choices=frozenset({"auto", "none", "required"}),
    ),
    ChatServer(
        name="openrouter",
        title="OpenRouter",
        docs="https://openrouter.ai/docs/api-reference/overview",
        base_url="https://openrouter.ai/api/v1",
        hosts=("openrouter.ai",),
        keys=("OPENROUTER_API_KEY",),
        url_variable="OPENROUTER_BASE_URL",
        settings=SETTINGS - {"store"},
        spelled={**_MAX_TOKENS, "reasoning_effort": "reasoning.effort"},
        reasoning="reasoning",
        cost="cost",
        file_urls=True,
        price_list="openrouter",
    ),
    ChatServer(
        name="groq",
        title="Groq",
        docs="https://console.groq.com/docs/openai",
        base_url="https://api.groq.com/openai/v1",
        hosts=("api.groq.com",),
        keys=("GROQ_API_KEY",),
        url_variable="GROQ_BASE_URL",
        settings=SETTINGS - {"store", "verbosity"},
        spelled=_MAX_COMPLETION_TOKENS,
        names=False,
        structured_output="tool",  # a schema beside tools is refused, and by many models in any case
        strict=False,
        reasoning="reasoning",
        price_list="groq",
    ),
    ChatServer(
        name="mistral",
        title="Mistral",
        docs="https://docs.mistral.ai/api/endpoint/chat",
        base_url="https://api.mistral.ai/v1",
        hosts=("api.mistral.ai",),
        keys=("MISTRAL_API_KEY",),
        url_variable="MISTRAL_BASE_URL",
        settings=SETTINGS - {"store", "verbosity"},
        spelled={**_MAX_TOKENS, "seed": "random_seed"},
        schema_beside_tools=False,
        names=False,
        stream_usage=False,
        call_id=9,
        user_after_tool=False,
        reasoning="thinking",
        reasoning_kept="all",
        extras=False,
        file_part="document_url",
        file_urls=True,
        price_list="mistral",
    ),
    ChatServer(
        name="deepseek",
        title="DeepSeek",
        docs="https://api-docs.deepseek.com/api/create-chat-completion",
        base_url="https://api.deepseek.com",
        hosts=("api.deepseek.com",),
        keys=("DEEPSEEK_API_KEY",),
        url_variable="DEEPSEEK_BASE_URL",
        settings=SETTINGS - {"store", "verbosity", "seed", "parallel_tool_calls"},
        spelled=_MAX_TOKENS,
        structured_output="tool",
        strict=False,
        tool_choices=frozenset({"auto", "none"}),  # in thinking mode, which is the usual one
        reasoning="reasoning_content",
        price_list="deepseek",
    ),
    ChatServer(
        name="xai",
        title="xAI",
        docs="https://docs.x.ai/docs/api-reference#chat-completions",
        base_url="https://api.x.ai/v1",
        hosts=("api.x.ai",),
        keys=("XAI_API_KEY",),
        url_variable="XAI_BASE_URL",
        settings=SETTINGS - {"store", "verbosity"},
        spelled=_MAX_COMPLETION_TOKENS,
        reasoning="reasoning_content",
        reasoning_apart=True,
        cost="cost_in_usd_ticks",
        cost_unit=1e-10,
        price_list="x-ai",
    ),
    ChatServer(
        name="together",
        title="Together",
        docs="https://docs.together.ai/reference/chat-completions-1",
        base_url="https://api.together.xyz/v1",
        hosts=("api.together.xyz", "api.together.ai"),
        keys=("TOGETHER_API_KEY",),
        url_variable="TOGETHER_BASE_URL",
        settings=SETTINGS - {"store", "verbosity", "parallel_tool_calls"},
        spelled=_MAX_TOKENS,
        schema_beside_tools=False,
        strict=False,
        price_list="together",
    ),
    ChatServer(
        name="fireworks",
        title="Fireworks",
        docs="https://docs.fireworks.ai/api-reference/post-chatcompletions",
        base_url="https://api.fireworks.ai/inference/v1",
        hosts=("api.fireworks.ai",),
        keys=("FIREWORKS_API_KEY",),
        url_variable="FIREWORKS_BASE_URL",
        settings=SETTINGS - {"store", "verbosity"},
        spelled=_MAX_TOKENS,
        schema_beside_tools=False,
        strict=False,
        reasoning="reasoning_content",
        price_list="fireworks",
    ),
    ChatServer(
        name="cerebras",
        title="Cerebras",
        docs="https://inference-docs.cerebras.ai/resources/openai",
        base_url="https://api.cerebras.ai/v1",
        hosts=("api.cerebras.ai",),
        keys=("CEREBRAS_API_KEY",),
        url_variable="CEREBRAS_BASE_URL",
        settings=SETTINGS - {"store", "verbosity"},
        spelled=_MAX_COMPLETION_TOKENS,
        structured_output="tool",
        reasoning="reasoning",
        price_list="cerebras",
    ),
    ChatServer(
        name="moonshot",
        title="Moonshot (Kimi)",
        docs="https://platform.kimi.ai/docs/api/chat",
        base_url="https://api.moonshot.ai/v1",
        hosts=("api.moonshot.ai", "api.moonshot.cn"),
        keys=("MOONSHOT_API_KEY", "MOONSHOTAI_API_KEY"),
        url_variable="MOONSHOT_BASE_URL",
        settings=SETTINGS - {"store", "verbosity", "seed", "parallel_tool_calls"},
        spelled=_MAX_COMPLETION_TOKENS,
        structured_output="tool",
        strict=False,
        tool_choices=frozenset({"auto", "none"}),
        reasoning="reasoning_content",
        price_list="moonshotai",
    ),
    ChatServer(
        name="perplexity",
        title="Perplexity",
        docs="https://docs.perplexity.ai/api-reference/chat-completions-post",
        base_url="https://api.perplexity.ai",
        hosts=("api.perplexity.ai",),
        keys=("PERPLEXITY_API_KEY",),
        url_variable="PERPLEXITY_BASE_URL",
        settings=frozenset({"temperature", "top_p", "max_output_tokens", "reasoning_effort"}),
        spelled=_MAX_TOKENS,
        names=False,
        stream_usage=False,
        tools=False,
        tool_choices=frozenset(),
        reasoning=None,
        extras=False,
        cost="cost.total_cost",
        file_part="file_url",
        file_urls=True,
        price_list="perplexity",
    ),
    ChatServer(
        name="huggingface",
        title="Hugging Face router",
        docs="https://huggingface.co/docs/inference-providers/tasks/chat-completion",
        base_url="https://router.huggingface.co/v1",
        hosts=("router.huggingface.co",),
        keys=("HF_TOKEN",),
        url_variable="HUGGINGFACE_BASE_URL",
        settings=SETTINGS - {"store", "verbosity", "parallel_tool_calls"},
        spelled=_MAX_TOKENS,
        schema_beside_tools=False,
        strict=False,
    ),
    ChatServer(
        name="litellm",
        title="LiteLLM proxy",
        docs="https://docs.litellm.ai/docs/providers/litellm_proxy",
        base_url="http://localhost:4000/v1",
        keys=("LITELLM_API_KEY", "LITELLM_PROXY_API_KEY"),
        needs_key=False,
        url_variable="LITELLM_BASE_URL",
        spelled=_MAX_TOKENS,
        price_list="litellm",
    ),
    ChatServer(
        name="zai",
        title="Z.ai",
        docs="https://docs.z.ai/api-reference/llm/chat-completion",
        base_url="https://api.z.ai/api/paas/v4",
        hosts=("api.z.ai",),
        keys=("ZAI_API_KEY",),
        url_variable="ZAI_BASE_URL",
        settings=SETTINGS - {"store", "verbosity", "seed", "parallel_tool_calls"},
        spelled=_MAX_TOKENS,
        names=False,
        stream_usage=False,
        structured_output="tool",
        strict=False,
        tool_choices=frozenset({"auto"}),
        reasoning="reasoning_content",
        reasoning_kept="all",
        price_list="zai",
    ),
    ChatServer(
        name="google-chat",
        title="Gemini behind Chat Completions",
        docs="https://ai.google.dev/gemini-api/docs/openai",
        base_url="https://generativelanguage.googleapis.com/v1beta/openai",
        hosts=("generativelanguage.googleapis.com",),
        keys=("GEMINI_API_KEY", "GOOGLE_API_KEY"),
        url_variable="GOOGLE_CHAT_BASE_URL",
        settings=SETTINGS - {"store", "verbosity", "seed", "parallel_tool_calls"},
        spelled=_MAX_TOKENS,
        schema_beside_tools=False,
        names=False,
        strict=False,
        reasoning=None,
        reasoning_apart=True,
        price_list="google",
    ),
)

SERVERS: Final[Mapping[str, ChatServer]] = MappingProxyType({server.name: server for server in _ALL})
"""All known servers by their names."""


def server_named(name: str) -> ChatServer:
    """Return the server with this name.

    Raises:
        UsageError: The name is unknown.
    """
    server = SERVERS.get(name)
    if server is None:
        near = get_close_matches(name.lower(), SERVERS, n=1)
        meant = f"did you mean {near[0]!r}? " if near else ""
        raise UsageError(f"the server {name!r} is unknown; {meant}Known: {', '.join(SERVERS)}")
    return server


@lru_cache(maxsize=256)
def server_at(host: str) -> ChatServer | None:
    """Return the known server at `host`, or None."""
    for server in _ALL:
        if any(host == domain or host.endswith(f".{domain}") for domain in server.hosts):
            return server
    return None
