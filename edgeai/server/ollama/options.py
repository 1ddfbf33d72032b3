"""Ollama's words for what OpenAI's requests say, so that both come down to the same request."""

from __future__ import annotations

import json
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from edgeai.errors import InvalidInput
from edgeai.server.ollama.protocol import OllamaMessage, Thinking, WritingRequest
from edgeai.server.protocol import ChatRequest, GenerationRequest
from edgeai.text.reasoning import reasoning_format

if TYPE_CHECKING:
    from edgeai.model import AsyncModel

# Those of the same meaning; all others are about how Ollama loads models, or older than its engine.
NAMES: Mapping[str, str] = {
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "seed": "seed",
    "stop": "stop",
    "repeat_penalty": "repetition_penalty",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
}
WHOLE_NUMBERS = frozenset({"top_k", "seed"})
LEAST_PENALTY = 0.01


def chat_request(
    model: AsyncModel, body: WritingRequest, messages: Sequence[OllamaMessage], tools: Sequence[Mapping[str, Any]]
) -> ChatRequest:
    """The same request in OpenAI's words. Raises `InvalidInput` with Ollama's names."""
    fields = {
        **_fields(model, body),
        "messages": _turns(messages),
        "tools": [*tools] or None,
        "chat_template_kwargs": _thinking(model, body.think),
        "reasoning_effort": body.think if isinstance(body.think, str) else None,
    }
    try:
        return ChatRequest.model_validate(fields)
    except ValidationError as error:
        raise _named(error) from None


def raw_request(model: AsyncModel, body: WritingRequest) -> GenerationRequest:
    """What applies to a prompt that is taken as it is. Raises `InvalidInput`."""
    try:
        return GenerationRequest.model_validate(_fields(model, body))
    except ValidationError as error:
        raise _named(error) from None


def max_tokens(model: AsyncModel, options: Mapping[str, Any] | None) -> int | None:
    """`num_predict`: the most tokens to write, to the end of the context where it is negative."""
    wanted = _whole("num_predict", (options or {}).get("num_predict"))
    if wanted is None:
        return None
    return model.context_length if wanted < 0 else max(1, wanted)


def _fields(model: AsyncModel, body: WritingRequest) -> dict[str, Any]:
    options = {name: value for name, value in (body.options or {}).items() if value is not None}
    fields: dict[str, Any] = {ours: options[theirs] for theirs, ours in NAMES.items() if theirs in options}
    for name in WHOLE_NUMBERS & fields.keys():
        fields[name] = _whole(name, fields[name])
    fields["max_tokens"] = max_tokens(model, options)
    fields["response_format"] = _format(body.format)
    return fields


def _whole(name: str, value: Any) -> int | None:
    """JSON knows one kind of number, and some clients write 40.0."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise InvalidInput(f"option {name!r} must be a whole number, not {value!r:.50}", param=f"options.{name}")
    return value


def _format(wanted: str | Mapping[str, Any] | None) -> dict[str, Any] | None:
    if wanted is None or wanted in ("", "text"):
        return None
    if wanted == "json":
        return {"type": "json_object"}
    if isinstance(wanted, str):
        raise InvalidInput(f"format {wanted!r:.50} is not known", 'use "json" or a JSON schema', param="format")
    return {"type": "json_schema", "json_schema": {"name": "format", "schema": dict(wanted)}}


def _thinking(model: AsyncModel, think: Thinking) -> dict[str, Any] | None:
    if think is None:
        return None
    thinks = model.template is not None and reasoning_format(model.template.source) is not None
    if think and not thinks:
        raise InvalidInput(f"{model.name} does not support thinking", "leave think out", param="think")
    return {"enable_thinking": bool(think)} if thinks else None


def _turns(messages: Sequence[OllamaMessage]) -> list[dict[str, Any]]:
    """Messages with ids of calls, which Ollama's do not have: results belong to the calls in order, by name."""
    turns, open_calls, made = [], defaultdict[str, deque[str]](deque), 0
    for number, message in enumerate(messages):
        if message.images:
            raise InvalidInput("this model reads only text", "leave the images out", param=f"messages[{number}].images")
        turn: dict[str, Any] = {"role": message.role, "content": message.content or ""}
        if message.thinking:
            turn["reasoning_content"] = message.thinking
        for call in message.tool_calls or ():
            made += 1
            open_calls[call.function.name].append(f"call{made:05}")
            turn.setdefault("tool_calls", []).append(_call(call.function.name, call.function.arguments, made))
        if message.role == "tool":
            turn |= {"tool_call_id": _answered(open_calls, message.tool_name), "name": message.tool_name}
        turns.append(turn)
    return turns


def _call(name: str, arguments: Mapping[str, Any], number: int) -> dict[str, Any]:
    text = json.dumps(arguments, ensure_ascii=False)
    return {"id": f"call{number:05}", "type": "function", "function": {"name": name, "arguments": text}}


def _answered(open_calls: Mapping[str, deque[str]], tool: str | None) -> str:
    """The oldest call without a result, of this tool if it is named."""
    waiting = [ids for name, ids in open_calls.items() if ids and tool in (None, "", name)]
    return min(waiting, key=lambda ids: ids[0]).popleft() if waiting else "call00000"


def _named(error: ValidationError) -> InvalidInput:
    problem = error.errors()[0]
    ours = {ours: f"options.{theirs}" for theirs, ours in NAMES.items()} | {"max_tokens": "options.num_predict"}
    first, *rest = problem["loc"]
    param = ".".join(str(part) for part in (ours.get(str(first), first), *rest))
    return InvalidInput(f"{param}: {str(problem['msg']).removeprefix('Value error, ')}", param=param)
