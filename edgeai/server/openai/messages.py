"""From the messages of a request to token ids: roles, tool calls and results, in the words of the chat template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgeai.errors import ContextLengthExceeded, InvalidInput
from edgeai.grammar.json_schema import check_depth
from edgeai.server.openai.sampling import encode
from edgeai.server.protocol import ChatRequest, Message
from edgeai.text.tool_calls.detect import ToolPrompting
from edgeai.text.tool_calls.prompt import native_messages, plain_messages, template_arguments

if TYPE_CHECKING:
    from edgeai.model import AsyncModel

RESERVED = frozenset({"messages", "tools", "add_generation_prompt"})
ROLES = {"developer": "system", "function": "tool"}  # newer and older names that templates do not know


async def encode_messages(
    model: AsyncModel,
    body: ChatRequest,
    tools: Sequence[Mapping[str, Any]],
    prompting: ToolPrompting,
    add_generation_prompt: bool = True,
) -> list[int]:
    """The prompt's token ids, with or without the beginning of an answer.

    Raises `InvalidInput` with the template's words if it refuses the messages.
    """
    turns = [_turn(number, message) for number, message in enumerate(body.messages)]
    system = model.manifest.prompt.system
    if system and turns[0]["role"] != "system":
        turns.insert(0, {"role": "system", "content": system})
    arguments = _template_arguments(body) | {"add_generation_prompt": add_generation_prompt}
    uses_tools = bool(tools) or any(turn["role"] == "tool" or "tool_calls" in turn for turn in turns)
    characters = sum(len(turn["content"] or "") for turn in turns)
    if not uses_tools:
        return await encode(lambda: model.encode_chat(turns, **arguments), characters)
    if prompting.native:
        told = {**template_arguments(model.require_template(), tools), **arguments}
        native = native_messages(turns, prompting.form)
        return await encode(lambda: model.encode_chat(native, **told), characters)
    return await encode(lambda: _encode_plain(model, turns, tools, prompting, arguments), characters)


def _encode_plain(
    model: AsyncModel,
    turns: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]],
    prompting: ToolPrompting,
    arguments: Mapping[str, Any],
) -> list[int]:
    try:
        return model.encode_chat(plain_messages(turns, tools, prompting.form), **arguments)
    except ContextLengthExceeded:
        raise
    except InvalidInput:  # some templates refuse system messages
        return model.encode_chat(plain_messages(turns, tools, prompting.form, system=False), **arguments)


def _turn(number: int, message: Message) -> dict[str, Any]:
    """A message in the API's newer words. Raises `InvalidInput` for one that says nothing."""
    calls = [call.model_dump() for call in message.tool_calls or []]
    if message.function_call is not None:
        calls = [{"id": None, "type": "function", "function": message.function_call.model_dump()}]
    where = f"messages[{number}]"
    if message.content is None and not calls:
        raise InvalidInput("the message has no content", param=f"{where}.content")
    if calls and message.role != "assistant":
        raise InvalidInput("only the assistant makes calls", param=f"{where}.tool_calls")
    if message.role == "tool" and message.tool_call_id is None:
        raise InvalidInput("the result does not say of which call it is", param=f"{where}.tool_call_id")
    turn: dict[str, Any] = {"role": ROLES.get(message.role, message.role), "content": message.content}
    more = {
        "tool_calls": calls,
        "tool_call_id": message.tool_call_id,
        "name": message.name if turn["role"] == "tool" else None,
        "reasoning_content": message.reasoning_content,
    }
    return turn | {name: value for name, value in more.items() if value}


def _template_arguments(body: ChatRequest) -> dict[str, Any]:
    """Variables for the template. `reasoning_effort` "none" switches thinking off where a template can."""
    given = dict(body.chat_template_kwargs or {})
    wrong = next((name for name in given if name in RESERVED or not name.isidentifier()), None)
    if wrong is not None:
        raise InvalidInput(f"{wrong!r} cannot be set for the template", param="chat_template_kwargs")
    check_depth(given, param="chat_template_kwargs")
    if body.reasoning_effort is not None:
        effort = {"reasoning_effort": body.reasoning_effort, "enable_thinking": body.reasoning_effort != "none"}
        return effort | given
    return given
