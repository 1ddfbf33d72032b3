"""`POST /v1/completions`: text that goes on, without a chat template."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from edgeai.errors import InvalidInput
from edgeai.server.generation import Generation, Usage, plan
from edgeai.server.metrics import Metrics
from edgeai.server.model_pool import ModelPool
from edgeai.server.openai.answer import Choice, answer, head
from edgeai.server.openai.logprobs import CompletionLogprobs, ShownTokens
from edgeai.server.openai.sampling import check_stream_options, encode, sampling_params
from edgeai.server.openai.structured import compiled, requested_grammar
from edgeai.server.openai.terms import terms_of
from edgeai.server.protocol import MAX_CHOICES, CompletionRequest, Prompt

if TYPE_CHECKING:
    from edgeai.engine.request import TokenOutput
    from edgeai.model import AsyncModel, Chunk


def router(models: ModelPool, metrics: Metrics) -> APIRouter:
    """The endpoint over the models of `models`."""
    routes = APIRouter()

    @routes.post("/v1/completions", response_model=None)
    async def completions(body: CompletionRequest, request: Request) -> Response:
        arrived = time.perf_counter()
        terms = terms_of(request, body)
        model = await models.find(body.model, request, body.keep_alive)
        check_supported(body)
        include_usage = check_stream_options(body)
        prompts = [await encode_prompt(model, prompt) for prompt in body.prompt]
        grammar = await compiled(model, await requested_grammar(body))
        params = sampling_params(model, body, max_tokens=body.max_tokens, logprobs=body.logprobs, grammar=grammar)
        jobs = plan(prompts, params, body.stop, body.n or 1)
        echoes = [echo_text(model, prompt) if body.echo else "" for prompt in body.prompt for _ in range(body.n or 1)]
        reply = CompletionReply(model, echoes, logprobs=body.logprobs is not None, include_usage=include_usage)
        generation = Generation(model, jobs, metrics.of_model(model.name), arrived=arrived, terms=terms)
        return await answer(request, generation, reply, stream=bool(body.stream), choices=len(jobs))

    return routes


def check_supported(body: CompletionRequest) -> None:
    """Refuse by name what would change the answer but is not there. Raises `InvalidInput`."""
    if body.suffix:
        raise InvalidInput("suffix is not supported: models here only write on", "leave it out", param="suffix")
    if body.best_of is not None and body.best_of != (body.n or 1):
        raise InvalidInput("best_of is not supported", "leave it out", param="best_of")
    if body.echo and body.logprobs is not None:
        raise InvalidInput("echo with logprobs is not supported", "leave out one of them", param="echo")
    if len(body.prompt) * (body.n or 1) > MAX_CHOICES:
        raise InvalidInput(f"prompts times n must be at most {MAX_CHOICES}", param="n")


async def encode_prompt(model: AsyncModel, prompt: Prompt) -> list[int]:
    """Token ids of one prompt. Raises `InvalidInput` if there are none or some are not in the vocabulary."""
    if isinstance(prompt, str):
        ids = await encode(lambda: model.encode_text(prompt), len(prompt))
    else:
        ids = prompt
    if not ids:
        raise InvalidInput("the prompt is empty", param="prompt")
    if max(ids) >= model.tokenizer.vocab_size:
        size = model.tokenizer.vocab_size
        raise InvalidInput(f"token {max(ids)} is outside the {size} tokens of the vocabulary", param="prompt")
    return ids


def echo_text(model: AsyncModel, prompt: Prompt) -> str:
    """The prompt as text, to be put before the answer."""
    return prompt if isinstance(prompt, str) else model.tokenizer.decode(prompt, skip_control=False)


class CompletionReply:
    """Writes a generation as text completion, whole or in chunks; `echoes` has the text before each choice."""

    def __init__(self, model: AsyncModel, echoes: list[str], *, logprobs: bool, include_usage: bool) -> None:
        self._echoes = dict(enumerate(echoes))
        self._include_usage = include_usage
        self._shown = defaultdict[int, ShownTokens](ShownTokens)
        self._head = head("text_completion", "cmpl", model)
        self._logprobs = (
            defaultdict[int, CompletionLogprobs](lambda: CompletionLogprobs(model.tokenizer)) if logprobs else None
        )

    def events(self, choice: int, chunk: Chunk) -> Iterator[dict[str, Any]]:
        """One document for each chunk that says something."""
        text = self._echoes.pop(choice, "") + chunk.text
        logprobs = self._token_logprobs(choice, self._shown[choice].push(chunk))
        if text or chunk.finish_reason is not None or (logprobs and logprobs["tokens"]):
            usage = {"usage": None} if self._include_usage else {}
            yield {**self._head, "choices": [_choice(choice, text, logprobs, chunk.finish_reason)], **usage}

    def closing(self, usage: Usage) -> Iterator[dict[str, Any]]:
        """The usage, if the client asked for it."""
        if self._include_usage:
            yield {**self._head, "choices": [], "usage": usage.as_dict()}

    def whole(self, choices: list[Choice], usage: Usage) -> dict[str, Any]:
        """The answer that is not streamed."""
        written = [
            _choice(
                number,
                self._echoes[number] + choice.text,
                self._token_logprobs(number, choice.tokens),
                choice.finish_reason,
            )
            for number, choice in enumerate(choices)
        ]
        return {**self._head, "choices": written, "usage": usage.as_dict()}

    def _token_logprobs(self, choice: int, tokens: Iterable[TokenOutput]) -> dict[str, Any] | None:
        return None if self._logprobs is None else self._logprobs[choice].push(tokens)


def _choice(number: int, text: str, logprobs: dict[str, Any] | None, finish_reason: str | None) -> dict[str, Any]:
    return {"index": number, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}
