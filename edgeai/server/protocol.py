"""What clients may send to the OpenAI endpoints. Fields that are not named here are ignored, as other servers do."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from edgeai.server.api_model import ApiModel as ApiModel  # those who extend this module take it from here
from edgeai.server.pool.keep_alive import KeepAlive
from edgeai.server.tool_protocol import FunctionCall, FunctionDefinition, ToolCall, ToolDefinition

MAX_STOP_STRINGS = 16
MAX_CHOICES = 128
MAX_TOP_LOGPROBS = 20
MAX_TOOLS = 128
_INT64 = 2**63

Temperature = Annotated[float, Field(ge=0, le=2)]
Probability = Annotated[float, Field(ge=0, le=1)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Bias = Annotated[float, Field(ge=-100, le=100)]
TokenCount = Annotated[int, Field(ge=1, lt=_INT64)]
Seed = Annotated[int, Field(ge=-_INT64, lt=_INT64)]
Priority = Annotated[int, Field(ge=-(2**31), lt=2**31)] | Literal["interactive", "batch"]
ServiceTier = Literal["auto", "default", "flex", "scale", "priority"]
Timeout = Annotated[float, Field(gt=0, le=86_400)]  # seconds
Prompt = str | list[int]
Prompts = Prompt | list[Prompt]
TextParts = str | list[dict[str, Any]] | None  # before they are put together


def _stop_strings(value: Any) -> Any:
    """One string and null are lists too."""
    if value is None:
        return []
    return [value] if isinstance(value, str) else value


def text_of_parts(value: Any, kinds: Collection[str] = ("text",)) -> Any:
    """Text parts joined by newlines; parts of other `kinds` are refused by name."""
    if not isinstance(value, list):
        return value
    return "\n".join(_part_text(number, part, kinds) for number, part in enumerate(value))


def _part_text(number: int, part: Any, kinds: Collection[str]) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind not in kinds:
        raise ValueError(f"part {number} is of type {kind!r}, but this model reads only text")
    text = part.get("text")
    if not isinstance(text, str):
        raise ValueError(f"part {number} has no text")
    return text


def _prompts(value: Any) -> list[Any]:
    """A string, token ids, or a list of either, as a list of prompts."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list) or not value:
        raise ValueError("must be a string, a list of strings, a list of token ids or a list of such lists")
    return [value] if are_token_ids(value) else [one_prompt(item) for item in value]


def one_prompt(item: Any) -> Any:
    if isinstance(item, str) or (isinstance(item, list) and item and are_token_ids(item)):
        return item
    raise ValueError("every prompt must be a string or a list of token ids that is not empty")


def are_token_ids(items: list[Any]) -> bool:
    return all(type(item) is int and 0 <= item < 2**31 for item in items)


class StreamOptions(ApiModel):
    """Options that only streams have."""

    include_usage: bool | None = None


class JsonSchemaFormat(ApiModel):
    """A schema by name; `strict` false ignores keywords that are not supported, rather than refuse them."""

    name: str | None = None
    json_schema: Annotated[Any, Field(alias="schema")] = None
    strict: bool | None = None


class ResponseFormat(ApiModel):
    """The form of the answer, as OpenAI's API has it."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None


class StructuredOutputs(ApiModel):
    """The form of the answer, as vLLM's API has it; one of these."""

    json_schema: Annotated[Any, Field(alias="json")] = None
    json_object: bool | None = None
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None


class Message(ApiModel):
    """One turn of a chat. `content` may come as a list of text parts."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Annotated[str | None, BeforeValidator(text_of_parts, json_schema_input_type=TextParts)] = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    function_call: FunctionCall | None = None
    name: str | None = None


class GenerationRequest(ApiModel):
    """What both endpoints share. None means the package's default, or else OpenAI's."""

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    seed: Seed | None = None
    stop: Annotated[
        list[Annotated[str, Field(min_length=1)]],
        BeforeValidator(_stop_strings, json_schema_input_type=str | list[str] | None),
        Field(max_length=MAX_STOP_STRINGS),
    ] = Field(default_factory=list)
    max_tokens: TokenCount | None = None
    temperature: Temperature | None = None
    top_p: Probability | None = None
    top_k: Annotated[int, Field(ge=-1, lt=2**31)] | None = None  # 0 and -1: no limit
    min_p: Probability | None = None
    repetition_penalty: Annotated[float, Field(ge=0.01, le=10)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: Any = None  # vLLM's names before structured_outputs, which many clients still send
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = None
    logit_bias: dict[Annotated[str, Field(pattern=r"^[0-9]{1,9}$")], Bias] | None = None
    service_tier: ServiceTier | None = None
    priority: Priority | None = None
    timeout: Timeout | None = None
    keep_alive: KeepAlive = None  # how long the model stays in memory afterwards


class ChatRequest(GenerationRequest):
    """Body of `POST /v1/chat/completions`."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: TokenCount | None = None  # the newer name; it wins over max_tokens
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    tools: Annotated[list[ToolDefinition], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: Any = None  # these two are looked at in openai/tools.py
    function_call: Any = None
    parallel_tool_calls: bool | None = None
    functions: Annotated[list[FunctionDefinition], Field(max_length=MAX_TOOLS)] | None = None
    reasoning_effort: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None


class CompletionRequest(GenerationRequest):
    """Body of `POST /v1/completions`."""

    prompt: Annotated[
        list[Prompt],
        BeforeValidator(_prompts, json_schema_input_type=Prompts),
        Field(max_length=MAX_CHOICES),
    ]
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    echo: bool | None = None
    suffix: str | None = None
    best_of: int | None = None
