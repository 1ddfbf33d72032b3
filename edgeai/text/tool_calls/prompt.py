"""Tools, calls and results in prompts: through the model's own chat template, or as text where it knows of none."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from edgeai.text.chat_template import ChatTemplate
from edgeai.text.tool_calls.json_format import JsonFormat

Message = Mapping[str, Any]

INSTRUCTIONS = """\
# Tools

You may call one or more functions. Each is described by a JSON schema:
<tools>
{tools}
</tools>

To call a function, write its name and arguments as JSON, like this:
{example}"""
RESULT = "<tool_response>\n{}\n</tool_response>"
MISTRAL_ID = 9  # letters or digits


def native_messages(messages: Sequence[Message], form: JsonFormat) -> list[dict[str, Any]]:
    """Messages as templates expect them: arguments as objects, empty content for none, ids that the format takes."""
    return [_native(message, form) for message in messages]


def template_arguments(template: ChatTemplate, tools: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The variables in which the template wants the tools. SmolLM3's is another than everybody's."""
    if "tools" not in template.variables:
        return {"xml_tools": [tool["function"] for tool in tools]}
    return {"tools": list(tools)}


def _native(message: Message, form: JsonFormat) -> dict[str, Any]:
    result = {**message, "content": message.get("content") or ""}
    if message.get("tool_calls"):
        result["tool_calls"] = [_native_call(call, form) for call in message["tool_calls"]]
    if message.get("tool_call_id"):
        result["tool_call_id"] = call_id(message["tool_call_id"], form)
    return result


def _native_call(call: Mapping[str, Any], form: JsonFormat) -> dict[str, Any]:
    function = {**call["function"], "arguments": _object(call["function"]["arguments"])}
    return {**call, "id": call_id(call.get("id") or "", form), "function": function}


def call_id(given: str, form: JsonFormat) -> str:
    """An id that the format takes: Mistral's templates refuse those of other servers."""
    fits = not form.name.startswith("mistral") or (len(given) == MISTRAL_ID and given.isalnum())
    return given if fits else hashlib.sha256(given.encode()).hexdigest()[:MISTRAL_ID]


def _object(arguments: str) -> Any:
    """Arguments are JSON text in the API and an object in templates; what is no JSON stays text."""
    try:
        return json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments


def plain_messages(
    messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], form: JsonFormat, *, system: bool = True
) -> list[dict[str, Any]]:
    """Messages of system, user and assistant only: tools described in the system message, calls and results as text.

    Results that follow each other are one user message, for many templates want turns to alternate. Without `system`
    the description is put before the first user message.
    """
    turns: list[dict[str, Any]] = []
    for message in messages:
        turn, is_result = _plain(message, form), message["role"] == "tool"
        if is_result and turns and turns[-1].get("result"):
            turns[-1]["content"] += f"\n{turn['content']}"
        else:
            turns.append({**turn, "result": is_result})
    return _with_instructions(
        [{"role": turn["role"], "content": turn["content"]} for turn in turns], tools, form, system
    )


def _plain(message: Message, form: JsonFormat) -> dict[str, Any]:
    content = message.get("content") or ""
    if message["role"] == "tool":
        return {"role": "user", "content": RESULT.format(content)}
    calls = [
        form.call_text(call["function"]["name"], json.dumps(_object(call["function"]["arguments"]), ensure_ascii=False))
        for call in message.get("tool_calls") or []
    ]
    return {"role": message["role"], "content": "\n".join([*([content] if content else []), *calls])}


def _with_instructions(
    turns: list[dict[str, Any]], tools: Sequence[Mapping[str, Any]], form: JsonFormat, system: bool
) -> list[dict[str, Any]]:
    given = turns.pop(0)["content"] if turns and turns[0]["role"] == "system" else ""
    before = [given] if given else []
    if tools:
        listed = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
        before.append(INSTRUCTIONS.format(tools=listed, example=form.call_text("<name>", "<arguments>")))
    text = "\n\n".join(before)
    if not text:
        return turns
    if system or not turns:
        return [{"role": "system", "content": text}, *turns]
    return [{**turns[0], "content": f"{text}\n\n{turns[0]['content']}"}, *turns[1:]]
