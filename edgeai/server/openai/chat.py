"""`POST /v1/chat/completions`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request
from starlette.responses import Response

from edgeai.engine.terms import Terms
from edgeai.errors import InvalidInput
from edgeai.grammar.reply import reply_spec
from edgeai.grammar.spec import GrammarSpec
from edgeai.server.generation import Generation, plan
from edgeai.server.metrics import Metrics
from edgeai.server.model_pool import ModelPool
from edgeai.server.openai.answer import answer
from edgeai.server.openai.chat_reply import ChatReply
from edgeai.server.openai.deltas import ReplyDeltas
from edgeai.server.openai.messages import encode_messages
from edgeai.server.openai.sampling import check_stream_options, sampling_params
from edgeai.server.openai.structured import compiled, requested_grammar
from edgeai.server.openai.terms import terms_of
from edgeai.server.openai.tools import ToolUse, requested_tools
from edgeai.server.protocol import ChatRequest
from edgeai.text.reasoning import ReasoningFormat, ReasoningParser, Thinking, reasoning_format, thinking_at
from edgeai.text.tool_calls.detect import ToolPrompting, tool_prompting
from edgeai.text.tool_calls.events import Parser, PlainParser
from edgeai.text.tool_calls.json_format import JsonFormat

if TYPE_CHECKING:
    from edgeai.model import AsyncModel

PROMPT_END = 16  # tokens that tell whether a reply begins with thoughts


def router(models: ModelPool, metrics: Metrics) -> APIRouter:
    """The endpoint over the models of `models`."""
    routes = APIRouter()

    @routes.post("/v1/chat/completions", response_model=None)
    async def chat_completions(body: ChatRequest, request: Request) -> Response:
        arrived = time.perf_counter()
        terms = terms_of(request, body)
        model = await models.find(body.model, request, body.keep_alive)
        if body.top_logprobs is not None and not body.logprobs:
            raise InvalidInput("top_logprobs needs logprobs to be true", param="top_logprobs")
        include_usage = check_stream_options(body)
        wanted = await prepare(model, body)
        reply = ChatReply(model, wanted.deltas, logprobs=bool(body.logprobs), include_usage=include_usage)
        generation = await begin(model, body, wanted, metrics, arrived=arrived, terms=terms)
        return await answer(request, generation, reply, stream=bool(body.stream), choices=body.n or 1)

    return routes


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a chat request comes down to: a prompt, what the reply must be like, and how it is taken apart."""

    prompt: Sequence[int]
    spec: GrammarSpec | None
    tools: ToolUse | None
    form: JsonFormat
    reasoning: ReasoningFormat | None
    thinking: Thinking

    def deltas(self) -> ReplyDeltas:
        """For one choice, in the words of chat completions."""
        return ReplyDeltas(self.parser(), legacy=self.tools is not None and self.tools.legacy)

    def parser(self) -> Parser:
        """For one choice."""
        parser: Parser = PlainParser() if self.tools is None else self.form.parser()
        if self.reasoning is not None:
            parser = ReasoningParser(self.reasoning, self.thinking, parser)
        return parser

    def shown(self, model: AsyncModel) -> frozenset[int]:
        """Control tokens among the marks that the parsers look for."""
        marks = () if self.tools is None else self.form.markers
        marks += () if self.reasoning is None else (self.reasoning.begin, self.reasoning.end)
        return frozenset(token for mark in marks if (token := model.tokenizer.control_id(mark)) is not None)


async def prepare(model: AsyncModel, body: ChatRequest) -> Wanted:
    """Raises `InvalidInput` for what the request's parts do not allow, or the chat template refuses."""
    tools = requested_tools(body)
    form_of_answer = await requested_grammar(body)
    prompting, prompt = await encode_chat_prompt(model, body, tools)
    reasoning = reasoning_format(model.require_template().source)
    thinking = Thinking.OVER
    if reasoning is not None:
        thinking = thinking_at(model.tokenizer.decode(prompt[-PROMPT_END:], skip_control=False), reasoning)
    spec = reply_spec(
        model.tokenizer,
        answer=None if tools is not None and tools.required else form_of_answer,
        calls=None if tools is None else tools.calls(prompting.form),
        reasoning=reasoning,
        thinking=thinking,
    )
    return Wanted(prompt, spec, tools, prompting.form, reasoning, thinking)


async def begin(
    model: AsyncModel, body: ChatRequest, wanted: Wanted, metrics: Metrics, *, arrived: float, terms: Terms
) -> Generation:
    """The generation of what is wanted, which runs once somebody iterates. Raises as `compiled` does."""
    params = sampling_params(
        model,
        body,
        max_tokens=body.max_completion_tokens or body.max_tokens,
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        grammar=await compiled(model, wanted.spec),
    )
    jobs = plan([wanted.prompt], params, body.stop, body.n or 1, shown=wanted.shown(model))
    return Generation(model, jobs, metrics.of_model(model.name), arrived=arrived, terms=terms)


async def encode_chat_prompt(
    model: AsyncModel, body: ChatRequest, tools: ToolUse | None, *, add_generation_prompt: bool = True
) -> tuple[ToolPrompting, list[int]]:
    """How the model is told of tools, and the prompt's token ids. Raises as `encode_messages` does."""
    prompting = tool_prompting(model.require_template(), model.manifest.prompt.tool_format)
    described = () if tools is None else tools.described
    return prompting, await encode_messages(model, body, described, prompting, add_generation_prompt)
