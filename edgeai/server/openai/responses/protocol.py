"""What clients may send to `/v1/responses`. Fields that are not named here are ignored."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from edgeai.server.api_model import ApiModel
from edgeai.server.pool.keep_alive import KeepAlive
from edgeai.server.protocol import (
    MAX_TOOLS,
    MAX_TOP_LOGPROBS,
    Priority,
    Probability,
    Seed,
    ServiceTier,
    Temperature,
    TextParts,
    Timeout,
    TokenCount,
    text_of_parts,
)
from edgeai.server.tool_protocol import FunctionDefinition

_said = partial(text_of_parts, kinds=("input_text", "output_text", "text"))
_thought = partial(text_of_parts, kinds=("reasoning_text", "text"))
Text = Annotated[str, BeforeValidator(_said, json_schema_input_type=str | list[dict[str, Any]])]
Thoughts = Annotated[str | None, BeforeValidator(_thought, json_schema_input_type=TextParts)]


class MessageItem(ApiModel):
    """What somebody said."""

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: Text


class CallItem(ApiModel):
    """A call that the model made; `arguments` is JSON text."""

    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str


class ResultItem(ApiModel):
    """What a call gave."""

    type: Literal["function_call_output"]
    call_id: str
    output: Text


class ReasoningItem(ApiModel):
    """What the model thought. Summaries and what other servers encrypted say nothing here."""

    type: Literal["reasoning"]
    content: Thoughts = None


def _kind(item: Any) -> Any:
    return item.get("type", "message") if isinstance(item, dict) else getattr(item, "type", None)


Item = Annotated[
    Annotated[MessageItem, Tag("message")]
    | Annotated[CallItem, Tag("function_call")]
    | Annotated[ResultItem, Tag("function_call_output")]
    | Annotated[ReasoningItem, Tag("reasoning")],
    Discriminator(
        _kind,
        custom_error_type="unknown_item",
        custom_error_message="an item is a message, function_call, function_call_output or reasoning",
    ),
]


def _items(value: Any) -> Any:
    """A string is what the user says."""
    return [{"role": "user", "content": value}] if isinstance(value, str) else value


class FunctionTool(FunctionDefinition):
    """A function that may be called. Tools that run at OpenAI are not here."""

    type: Literal["function"]


class TextFormat(ApiModel):
    """The form of the answer's text."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    json_schema: Annotated[Any, Field(alias="schema")] = None
    strict: bool | None = None


class TextOptions(ApiModel):
    """Options of the answer's text."""

    format: TextFormat | None = None


class ReasoningOptions(ApiModel):
    """How much a thinking model is to think."""

    effort: str | None = None


class ResponsesRequest(ApiModel):
    """Body of `POST /v1/responses`. None means the package's default, or else OpenAI's."""

    model: str | None = None
    input: Annotated[list[Item], BeforeValidator(_items, json_schema_input_type=str | list[Item]), Field(min_length=1)]
    instructions: str | None = None
    tools: Annotated[list[FunctionTool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    text: TextOptions | None = None
    reasoning: ReasoningOptions | None = None
    max_output_tokens: TokenCount | None = None
    temperature: Temperature | None = None
    top_p: Probability | None = None
    seed: Seed | None = None
    include: list[str] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    stream: bool | None = None
    metadata: dict[str, str] | None = None
    user: str | None = None
    service_tier: ServiceTier | None = None
    priority: Priority | None = None
    timeout: Timeout | None = None
    keep_alive: KeepAlive = None
    store: bool | None = None  # nothing is, and the answer says so
    truncation: Literal["auto", "disabled"] | None = None
    background: bool | None = None
    previous_response_id: str | None = None
    conversation: Any = None
    prompt: Any = None

    @property
    def wants_logprobs(self) -> bool:
        """Whether the answer's text comes with log probabilities."""
        return bool(self.top_logprobs) or "message.output_text.logprobs" in (self.include or ())
