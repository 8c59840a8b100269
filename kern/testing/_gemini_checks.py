"""The checks of Google's Gemini API that runtimes fail most often."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any

from kern.models.base import ToolDefinition
from kern.models.google.generation import wants_signatures
from kern.testing._gemini import SEAL
from kern.testing._refusal import Refused

_BODY = frozenset(
    {
        *("contents", "tools", "toolConfig", "safetySettings", "systemInstruction", "generationConfig"),
        *("cachedContent", "labels", "serviceTier", "store", "model", "modelArmorConfig"),
    }
)
_DATA = ("text", "inlineData", "fileData", "functionCall", "functionResponse", "executableCode")
_DATA_OF_TOOLS = ("codeExecutionResult", "toolCall", "toolResponse")
_PART = frozenset(
    {
        *(*_DATA, *_DATA_OF_TOOLS, "thought", "thoughtSignature", "partMetadata", "videoMetadata"),
        *("mediaResolution",),
    }
)
_JSON_SCHEMA = frozenset(
    {
        *("$schema", "default", "pattern", "minLength", "maxLength"),  # recorded, though not documented
        *("$id", "$defs", "$ref", "$anchor", "type", "format", "title", "description", "enum", "items"),
        *("prefixItems", "minItems", "maxItems", "minimum", "maximum", "anyOf", "oneOf", "properties"),
        *("additionalProperties", "required", "propertyOrdering"),
    }
)
_OPENAPI = frozenset(
    {
        *("type", "format", "title", "description", "nullable", "enum", "maxItems", "minItems"),
        *("properties", "required", "minProperties", "maxProperties", "minLength", "maxLength", "pattern"),
        *("example", "anyOf", "propertyOrdering", "default", "items", "minimum", "maximum"),
    }
)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,127}")
_SKIP = "skip_thought_signature_validator"
_COUNTS_DIFFER = (
    "Please ensure that the number of function response parts is equal to the number of function call parts "
    "of the function call turn."
)
_NO_CALL_BEFORE = "Please ensure that function response turn comes immediately after a function call turn."
_NO_USER_BEFORE = (
    "Please ensure that function call turn comes immediately after a user turn or after a function response "
    "turn."
)
_UNSIGNED = (
    "Function call is missing a thought_signature in functionCall parts. This is required for tools to work "
    "correctly, and missing thought_signature may lead to degraded model performance. Additional data, "
    "function call `default_api:{name}` , position {position}. Please refer to "
    "https://ai.google.dev/gemini-api/docs/thought-signatures for more details."
)


def check_body(body: Mapping[str, Any], model: str) -> None:
    """Refuse a body with unknown fields, or with fields that exclude each other."""
    for name in body:
        if name not in _BODY:
            raise Refused(400, f'Invalid JSON payload received. Unknown name "{name}": Cannot find field.')
    if not isinstance(body.get("contents"), list) or not body["contents"]:
        raise Refused(400, "* GenerateContentRequest.contents: contents is not specified\n")
    config = body.get("generationConfig") or {}
    functions = functions_of(body)
    built_in = [name for tool in body.get("tools") or () for name in tool if name != "functionDeclarations"]
    as_json = config.get("responseMimeType") == "application/json"
    if not wants_signatures(model):
        if functions and as_json:
            text = "Function calling with a response mime type: 'application/json' is unsupported"
            raise Refused(400, text)
        if functions and built_in:
            raise Refused(400, "Tool use with function calling is unsupported")
        if built_in and as_json:
            raise Refused(400, "Tool use with a response mime type: 'application/json' is unsupported")
    _check_thinking(config.get("thinkingConfig") or {}, model)
    _check_choice(body, {tool.name for tool in functions})
    for field in ("responseJsonSchema", "responseSchema"):
        if field in config:
            if not as_json:
                raise Refused(400, "Unable to submit request because controlled generation needs a mime type")
            check_schema(config[field], field, f"generation_config.{field}")


def _check_thinking(config: Mapping[str, Any], model: str) -> None:
    if "thinkingLevel" in config and "thinkingBudget" in config:
        raise Refused(400, "You can only set only one of thinking budget and thinking level.")
    if "thinkingLevel" in config and not wants_signatures(model):
        raise Refused(400, "Thinking level is not supported for this model.")


def _check_choice(body: Mapping[str, Any], names: set[str]) -> None:
    config = (body.get("toolConfig") or {}).get("functionCallingConfig") or {}
    allowed = config.get("allowedFunctionNames") or ()
    if allowed and str(config.get("mode")).upper() not in ("ANY", "VALIDATED"):
        raise Refused(400, "Function calling config: allowed_function_names can only be set with mode ANY.")
    for name in allowed:
        if name not in names:
            raise Refused(400, f"Function calling config: the allowed function name {name} is not declared.")


def functions_of(body: Mapping[str, Any]) -> list[ToolDefinition]:
    """The functions that a body declares."""
    found: dict[str, ToolDefinition] = {}
    for tool in body.get("tools") or ():
        for at, declared in enumerate(tool.get("functionDeclarations") or ()):
            path = f"tools[0].function_declarations[{at}]"
            name = declared.get("name")
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                text = (
                    f"* GenerateContentRequest.{path}.name: Invalid function name. Must start with a letter"
                )
                raise Refused(400, f"{text} or an underscore.")
            if name in found:
                raise Refused(400, f"Duplicate function declaration found: {name}")
            given = [field for field in ("parameters", "parametersJsonSchema") if field in declared]
            if len(given) > 1:
                raise Refused(400, f"{path}: only one of parameters and parameters_json_schema can be set.")
            schema = declared[given[0]] if given else {}
            if given:
                check_schema(schema, given[0], f"{path}.{given[0]}")
            found[name] = ToolDefinition(name, declared.get("description") or "", schema)
    return list(found.values())


def check_schema(schema: Any, field: str, path: str) -> None:
    """Refuse a schema with unknown keywords, or one that recurses through required properties."""
    _check_keywords(schema, field, path, root=True)
    definitions = schema.get("$defs") if isinstance(schema, dict) else None
    for name, part in (definitions or {}).items():
        if _leads_to(part, name, definitions or {}, frozenset()):
            raise Refused(400, f"{path}: the schema is recursive through required properties.")


def _leads_to(schema: Any, name: str, definitions: Mapping[str, Any], seen: frozenset[str]) -> bool:
    """Whether the required properties of a schema lead to the definition `name`."""
    if not isinstance(schema, dict):
        return False
    if isinstance(reference := schema.get("$ref"), str):
        target = reference.rpartition("/")[2]
        if target == name:
            return True
        return target not in seen and _leads_to(definitions.get(target), name, definitions, seen | {target})
    properties = schema.get("properties") or {}
    ahead = [properties.get(key) for key in schema.get("required") or ()]
    ahead += [schema.get("items"), *(schema.get("anyOf") or ()), *(schema.get("prefixItems") or ())]
    return any(_leads_to(part, name, definitions, seen) for part in ahead)


def _check_keywords(schema: Any, field: str, path: str, *, root: bool = False) -> None:
    by_json = field.endswith("JsonSchema")
    known = _JSON_SCHEMA if by_json else _OPENAPI
    if not isinstance(schema, dict):
        return
    for name in schema:
        if name not in known:
            raise _unknown(name, path)
    if "$ref" in schema and not root and any(not name.startswith("$") for name in schema):
        raise Refused(400, f"{path}: if $ref is set, no other properties may be set.")
    if not by_json and isinstance(schema.get("type"), list):
        text = f"Invalid JSON payload received. Unknown name \"type\" at '{path}': "
        raise Refused(400, f"{text}Proto field is not repeating, cannot start list.")
    properties = schema.get("properties") or {}
    if not by_json and properties and str(schema.get("type")).lower() != "object":
        raise Refused(400, f"{path}.properties: only allowed for OBJECT type")
    for name in () if by_json else schema.get("required") or ():
        if name not in properties:
            raise Refused(400, f"{path}.required[{name}]: property is not defined")
    for group in ("properties", "$defs"):
        for name, part in (schema.get(group) or {}).items():
            _check_keywords(part, field, f"{path}.{group}[{name}]")
    for group in ("anyOf", "oneOf", "prefixItems"):
        for at, part in enumerate(schema.get(group) or ()):
            _check_keywords(part, field, f"{path}.{group}[{at}]")
    for group in ("items", "additionalProperties"):
        _check_keywords(schema.get(group), field, f"{path}.{group}")


def _unknown(name: str, path: str) -> Refused:
    return Refused(
        400, f"Invalid JSON payload received. Unknown name \"{name}\" at '{path}': Cannot find field."
    )


def check_turns(contents: list[dict[str, Any]], model: str) -> None:
    """Refuse unknown roles and parts, unpaired calls and results, missing and foreign signatures."""
    before: dict[str, Any] | None = None
    for at, content in enumerate(contents):
        if content.get("role") not in (None, "user", "model", "function"):
            raise Refused(400, "Please use a valid role: user, model.")
        parts = content.get("parts")
        if not parts:
            text = f"* GenerateContentRequest.contents[{at}].parts: contents.parts must not be empty.\n"
            raise Refused(400, text)
        for index, part in enumerate(parts):
            _check_part(part, f"contents[{at}].parts[{index}]")
        _check_pairs(before, content)
        before = content
    if _count(before, "functionCall"):
        raise Refused(400, _COUNTS_DIFFER)
    if wants_signatures(model):
        _check_signed(contents)


def _check_part(part: dict[str, Any], path: str) -> None:
    for name in part:
        if name not in _PART:
            raise _unknown(name, path)
    data = [name for name in part if name in (*_DATA, *_DATA_OF_TOOLS)]
    if len(data) != 1 and not (not data and "thoughtSignature" in part):
        text = "required oneof field 'data' must have one initialized field\n"
        text = f"* GenerateContentRequest.{path}.data: {text}"
        raise Refused(400, text)
    for name in ("functionCall", "functionResponse"):
        if name in part and not part[name].get("name"):
            raise Refused(400, f"* GenerateContentRequest.{path}.{name}.name: Name cannot be empty.\n")
    signature = part.get("thoughtSignature")
    if signature is not None and signature != _SKIP:
        try:
            sealed = base64.b64decode(signature, validate=True)
        except (binascii.Error, ValueError, TypeError):
            sealed = b""
        if not sealed.startswith(SEAL):
            raise Refused(400, "Corrupted thought signature.")


def _check_pairs(before: dict[str, Any] | None, content: dict[str, Any]) -> None:
    calls, results = _count(before, "functionCall"), _count(content, "functionResponse")
    if calls != results:
        raise Refused(400, _COUNTS_DIFFER if calls else _NO_CALL_BEFORE)
    if _count(content, "functionCall") and (before is None or before.get("role") == "model"):
        raise Refused(400, _NO_USER_BEFORE)


def _count(content: dict[str, Any] | None, kind: str) -> int:
    return sum(kind in part for part in content["parts"]) if content else 0


def _check_signed(contents: list[dict[str, Any]]) -> None:
    """Check that the first call of every step since the user's last text is signed."""
    began = max(
        (
            at
            for at, content in enumerate(contents)
            if content.get("role") != "model" and not _count(content, "functionResponse")
        ),
        default=0,
    )
    for position, content in enumerate(contents[began:], began):
        first = next((part for part in content["parts"] if "functionCall" in part), None)
        if first is not None and not first.get("thoughtSignature"):
            raise Refused(400, _UNSIGNED.format(name=first["functionCall"]["name"], position=position + 1))
