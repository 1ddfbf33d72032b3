"""A request to `/v1/responses` in the words of chat completions, and errors in its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from edgeai.errors import InvalidInput
from edgeai.server.openai.responses.protocol import (
    CallItem,
    FunctionTool,
    Item,
    MessageItem,
    ReasoningItem,
    ResponsesRequest,
    ResultItem,
    TextFormat,
)
from edgeai.server.protocol import ChatRequest, Message, ResponseFormat
from edgeai.server.tool_protocol import ToolDefinition

_STATELESS = "nothing is stored between requests", "send the whole conversation as input"
_NAMES = {
    "messages": "input",
    "response_format": "text.format",
    ".function.": ".",
    "max_tokens": "max_output_tokens",
}
_SYSTEM = {"system", "developer"}


def chat_request(body: ResponsesRequest) -> ChatRequest:
    """The same request for a chat completion. Raises `InvalidInput` for what is not there."""
    check_supported(body)
    tools, choice = _tools(body)
    return ChatRequest(
        model=body.model,
        messages=messages_of(body.instructions, body.input),
        tools=[ToolDefinition(function=tool) for tool in tools],
        tool_choice=choice,
        parallel_tool_calls=body.parallel_tool_calls,
        response_format=_response_format(body.text.format) if body.text and body.text.format else None,
        reasoning_effort=body.reasoning.effort if body.reasoning else None,
        max_tokens=body.max_output_tokens,
        temperature=body.temperature,
        top_p=body.top_p,
        seed=body.seed,
        logprobs=body.wants_logprobs,
        top_logprobs=body.top_logprobs,
        service_tier=body.service_tier,
        priority=body.priority,
        timeout=body.timeout,
    )


def check_supported(body: ResponsesRequest) -> None:
    """Refuse by name what would change the answer but is not there. Raises `InvalidInput`."""
    for name in ("previous_response_id", "conversation", "prompt"):
        if getattr(body, name) is not None:
            raise InvalidInput(f"{name} is not supported: {_STATELESS[0]}", _STATELESS[1], param=name)
    if body.background:
        raise InvalidInput(f"background is not supported: {_STATELESS[0]}", "use /v1/batches", param="background")
    if body.truncation == "auto":
        raise InvalidInput("truncation auto is not supported", "leave older items out of input", param="truncation")


def messages_of(instructions: str | None, items: Sequence[Item]) -> list[Message]:
    """Messages of a chat: thoughts, words and calls of one turn in one. Raises `InvalidInput` if nothing is said."""
    turns: list[dict[str, Any]] = [{"role": "system", "content": instructions}] if instructions else []
    for item in items:
        _add(turns, item)
    said = [turn for turn in turns if "content" in turn or "tool_calls" in turn]  # thoughts alone are dropped
    if not said:
        raise InvalidInput("the input says nothing", param="input")
    return [Message.model_validate(turn) for turn in said]


def _add(turns: list[dict[str, Any]], item: Item) -> None:
    last: dict[str, Any] = turns[-1] if turns else {"role": None}
    match item:
        case ReasoningItem(content=text):
            turns.append({"role": "assistant", "reasoning_content": text})
        case CallItem():
            call = {"id": item.call_id, "function": {"name": item.name, "arguments": item.arguments}}
            if last["role"] != "assistant":
                turns.append(last := {"role": "assistant"})
            last.setdefault("tool_calls", []).append(call)
        case ResultItem():
            turns.append({"role": "tool", "tool_call_id": item.call_id, "content": item.output})
        case MessageItem(role="assistant", content=text) if last.keys() == {"role", "reasoning_content"}:
            last["content"] = text
        case MessageItem(role=role, content=text):
            if len(turns) == 1 and {role, last["role"]} <= _SYSTEM:  # most templates take one, as the first
                last["content"] += f"\n\n{text}"
            else:
                turns.append({"role": role, "content": text})


def _tools(body: ResponsesRequest) -> tuple[Sequence[FunctionTool], Any]:
    """The tools and the choice among them; of `allowed_tools` only those."""
    tools, choice = body.tools or (), body.tool_choice
    if not isinstance(choice, dict) or choice.get("type") != "allowed_tools":
        return tools, choice
    allowed = choice.get("tools")
    if not isinstance(allowed, list) or choice.get("mode") not in ("auto", "required"):
        raise InvalidInput("allowed_tools has a mode, auto or required, and a list of tools", param="tool_choice")
    names = [tool.get("name") for tool in allowed if isinstance(tool, dict)]
    return [tool for tool in tools if tool.name in names], choice["mode"]


def _response_format(form: TextFormat) -> ResponseFormat:
    schema = {"name": form.name, "schema": form.json_schema, "strict": form.strict}
    return ResponseFormat.model_validate({"type": form.type, "json_schema": schema})


@contextmanager
def own_words() -> Iterator[None]:
    """Errors name the fields of the client's request, not of the chat that it became."""
    try:
        yield
    except InvalidInput as error:
        for theirs, ours in _NAMES.items():
            error.param = error.param and error.param.replace(theirs, ours)
        raise
