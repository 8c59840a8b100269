"""What people type from habit, and what it is called here: the one table of such names."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Final

KEYWORDS: Final[dict[str, str]] = {
    "system_prompt": "write instructions=, or system_message= for a system message of your own",
    "prompt": "write instructions=; what the user asks goes to run(...)",
    "system": "write instructions=, or system_message= for a system message of your own",
    "llm": 'write model=, such as model="openai:gpt-5.2"',
    "model_id": 'write model="provider:id", such as model="openai:gpt-5.2"',
    "api_key": "the model takes it: model=OpenAIResponses(id=..., api_key=...), or its environment variable",
    "temperature": "the model takes it: model=OpenAIResponses(id=..., temperature=...)",
    "functions": "write tools=",
    "agents": "a team's members come first: Team([agent, ...])",
    "handoffs": "a Team sends tasks to its members: Team([agent, ...])",
    "output_type": "write output_schema=",
    "result_type": "write output_schema=",
    "response_model": "write output_schema=",
    "response_format": "write output_schema=",
    "deps_type": "write dependencies=, a dict",
    "deps": "write dependencies=, a dict",
    "context": "write dependencies=, or session_state= for what functions change",
    "memory": "sessions are kept by db=; add_history_to_context=True shows earlier runs to the model",
    "memory_manager": "there is none: keep what is to be remembered in session_state=, stored by db=",
    "enable_user_memories": "there are none: keep what is to be remembered in session_state=, stored by db=",
    "enable_agentic_memory": "write enable_agentic_state=True",
    "storage": "write db=, such as db=SqliteDb('agents.db')",
    "session": "write session_id=",
    "checkpointer": "write db=, such as db=SqliteDb('agents.db')",
    "knowledge": "there is none: give the agent a tool that searches your documents",
    "knowledge_base": "there is none: give the agent a tool that searches your documents",
    "search_knowledge": "there is none: give the agent a tool that searches your documents",
    "telemetry": "Kern sends none; leave it out",
    "monitoring": "Kern sends none; leave it out",
    "show_tool_calls": "print_response shows them; leave it out",
    "guardrails": "write pre_hooks= and post_hooks=",
    "input_guardrails": "write pre_hooks=",
    "output_guardrails": "write post_hooks=",
    "max_turns": "write max_requests=",
    "max_iterations": "write max_requests=",
    "max_steps": "write max_requests=",
    "add_history_to_messages": "write add_history_to_context=",
    "num_history_responses": "write num_history_runs=",
    "thread_id": "write session_id=",
    "conversation_id": "write session_id=",
    "message_history": "write session_id= and add_history_to_context=True: a session has its messages",
    "previous_response_id": "write session_id= and add_history_to_context=True",
    "model_settings": "the model takes them: model=OpenAIResponses(id=..., temperature=...)",
    "toolsets": "write tools=, which takes Toolkits and MCPTools, too",
    "mcp_servers": "write tools=[MCPTools(...)], from kern.tools.mcp",
    "capabilities": "write tools=, pre_hooks=, post_hooks= and instructions=",
    "hooks": "write pre_hooks=, post_hooks= or tool_hooks=; a stream has the events of a run",
    "handoff_description": "write role=",
    "tool_use_behavior": "the tool takes it: @tool(stop_after_tool_call=True)",
    "reset_tool_choice": "a tool_choice= that forces a call holds until a tool was called; leave it out",
    "tool_timeout": "the tool takes it: @tool(timeout=...)",
    "needs_approval": "the tool takes it: @tool(requires_confirmation=True)",
    "requires_approval": "the tool takes it: @tool(requires_confirmation=True)",
    "usage": "write usage_limits=, with a UsageBudget that several runs share",
    "checkpoint": "write journal=DbJournal(db), from kern.durable",
    **dict.fromkeys(
        ("reasoning_model", "reasoning_agent", "reasoning_min_steps", "reasoning_max_steps"),
        "there is none: take a model that reasons; what it thinks is in reasoning_content",
    ),
    **dict.fromkeys(
        ("knowledge_retriever", "knowledge_filters", "add_knowledge_to_context", "update_knowledge"),
        "there is none: give the agent a tool that searches your documents",
    ),
    **dict.fromkeys(
        ("add_memories_to_context", "enable_agentic_culture", "culture_manager", "learning"),
        "there are none: keep what is to be remembered in session_state=, stored by db=",
    ),
    **dict.fromkeys(
        ("store_media", "store_tool_messages", "store_history_messages", "cache_session"),
        "a session is stored whole with db=; leave it out",
    ),
    "compress_tool_results": "there is none: shorten what a tool returns; see max_tool_calls_from_history=",
    "skills": "write tools= and instructions=",
    "session_summary_manager": "write enable_session_summaries=True, and session_summary_model=",
    "search_session_history": "write read_chat_history=True, for the session of the run",
    "num_history_sessions": "there is no search in other sessions: give the agent a tool",
    "build_context": "write system_message= for a system message of your own",
    "success_criteria": "write expected_output=",
    "delegate_task_to_all_members": 'write mode="broadcast"',
    "tool_retries": "the model is told of a tool's error, and may try again; leave it out",
    "output_retries": "an answer that does not fit is sent back three times; leave it out",
    "reasoning": "there is none: take a model that reasons; what it thinks is in reasoning_content",
}
"""Keywords of constructors and runs, with what to do instead."""

_READ_CONTENT = "write output.content"
_STREAM = "write `async for event in agent.arun(..., stream=True)`, or run(..., stream=True) in sync code"
_TOOLS = "pass all tools to the constructor: tools=[function, ...]"

RUNNER_ATTRIBUTES: Final[dict[str, str]] = {
    "run_sync": "write run(...); await arun(...) in async code",
    "run_stream": _STREAM,
    "run_stream_events": f"{_STREAM}; stream_events=True adds the other events",
    "run_streamed": _STREAM,
    "iter": f"{_STREAM}; stream_events=True adds the other events",
    "invoke": "write run(...); await arun(...) in async code",
    "ainvoke": "write await arun(...)",
    "override": "write agent.model = ScriptedModel([...]), from kern.testing",
    "tool": f"{_TOOLS}; @tool from kern adds options",
    "tool_plain": f"{_TOOLS}; @tool from kern adds options",
    "add_tool": _TOOLS,
    "set_tools": _TOOLS,
    "system_prompt": "pass instructions= to the constructor: a text, or a function that returns one",
    "output_validator": "pass post_hooks= to the constructor",
    "get_messages_for_session": "write get_session_messages(session_id)",
    "get_session_summary": "write get_session(session_id).summary",
    "get_user_memories": "there are none: keep what is to be remembered in session_state=, stored by db=",
    "as_tool": "make a Team of the agents: Team([agent, ...])",
}
"""Attributes of agents and teams in other libraries, with what to do instead."""

OUTPUT_ATTRIBUTES: Final[dict[str, str]] = {
    "output": _READ_CONTENT,
    "data": _READ_CONTENT,
    "final_output": _READ_CONTENT,
    "text": _READ_CONTENT,
    "response": _READ_CONTENT,
    "all_messages": "write output.messages",
    "new_messages": "write output.messages",
    "new_items": "write output.messages",
    "to_input_list": "pass session_id= and add_history_to_context=True to the next run",
    "is_paused": "write output.status is RunStatus.paused",
    "is_cancelled": "write output.status is RunStatus.cancelled",
    "active_requirements": "write [r for r in output.requirements if not r.is_resolved]",
    "tools_requiring_confirmation": "write output.requirements",
    "usage": "write output.metrics",
}
"""Attributes of the result of a run in other libraries, with what to do instead."""

MODULES: Final[dict[str, str]] = {
    "kern.memory": "there is no such module: keep what is to be remembered in session_state=, stored by db=",
    "kern.knowledge": "there is no such module: give the agent a tool that searches your documents",
    "kern.storage": "the databases are in kern.db: from kern.db.sqlite import SqliteDb",
    "kern.exceptions": "the errors are in kern.errors",
    "kern.media": "Image, Audio, Video and File are in kern.messages",
    "kern.models.message": "Message is in kern.messages",
    "kern.models.response": "ModelResponse is in kern.models",
    "kern.run.response": "RunOutput and the events are in kern.run",
    "kern.run.base": "RunOutput, RunContext and RunStatus are in kern.run",
    "kern.workflow": "there is no such module: a workflow is your own async function that awaits agents",
    "kern.workflows": "there is no such module: a workflow is your own async function that awaits agents",
    "kern.vectordb": "there is no such module: give the agent a tool that searches your documents",
    "kern.embedder": "there is no such module: give the agent a tool that searches your documents",
    "kern.playground": "there is no such module: cli_app() is a chat in the terminal",
    "kern.os": "there is no such module: an agent runs inside of any FastAPI handler",
    "kern.app": "there is no such module: an agent runs inside of any FastAPI handler",
    "kern.eval": "there is no such module: kern.testing has models and servers for tests",
    "kern.session": "Session is in kern: from kern import Session",
    "kern.function": "tool and Toolkit are in kern; Function is in kern.tools",
}
"""Modules that there are not, with where their contents are."""

_PROVIDERS: Final[dict[str, str]] = {
    **dict.fromkeys(
        (
            *("arn:aws:bedrock", "amazon.", "anthropic.", "meta.", "mistral.", "cohere.", "writer."),
            *("us.", "eu.", "apac.", "jp.", "au.", "ca.", "global.", "us-gov."),
        ),
        "bedrock",
    ),
    **dict.fromkeys(("gpt-", "chatgpt", "o1", "o3", "o4"), "openai"),
    "claude": "anthropic",
    "gemini": "google",
    **dict.fromkeys(("mistral", "magistral", "codestral"), "mistral"),
    "deepseek": "deepseek",
    "grok": "xai",
    "sonar": "perplexity",
    **dict.fromkeys(("llama", "qwen", "gemma", "phi"), "ollama"),
}
"""Whose a model is, by how its id begins."""


def explain_attribute(owner: object, name: str, habits: Mapping[str, str]) -> Any:
    """Call this from `__getattr__`: raise the usual `AttributeError`, with a hint if the name is a habit.

    Raises:
        AttributeError: Always, unless another thread has just set the attribute.
    """
    try:
        return object.__getattribute__(owner, name)
    except AttributeError as error:
        if (hint := habits.get(name)) is not None and not hasattr(type(owner), name):
            error.args = (f"{error}: {hint}",)
        raise


def provider_of(model_id: str) -> str | None:
    """The provider that a model's id without one most likely means."""
    known = model_id.lower()
    return next((provider for start, provider in _PROVIDERS.items() if known.startswith(start)), None)


class _ModulesFromHabit:
    """The last finder of modules: explains a module of Kern that no other finder has found."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See `importlib.abc.MetaPathFinder`.

        Raises:
            ModuleNotFoundError: It is one of `MODULES`.
        """
        if (hint := MODULES.get(name)) is not None:
            raise ModuleNotFoundError(f"No module named {name!r}: {hint}", name=name)
        return None


sys.meta_path.append(_ModulesFromHabit)
