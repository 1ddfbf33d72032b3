"""From a request's fields to the engine's parameters, and from its prompts to token ids."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from edgeai.engine.constraint import Grammar
from edgeai.engine.request import SamplingParams
from edgeai.errors import InvalidInput
from edgeai.server.protocol import GenerationRequest

if TYPE_CHECKING:
    from edgeai.model import AsyncModel

LONG_TEXT = 4096  # characters; encoding more than this could be felt by other requests, so a thread does it


def sampling_params(
    model: AsyncModel,
    body: GenerationRequest,
    *,
    max_tokens: int | None,
    logprobs: int | None,
    grammar: Grammar | None = None,
) -> SamplingParams:
    """The package's defaults with what the request says. Without any limit the rest of the context may be written."""
    return model.default_params(
        max_tokens=max_tokens,
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=None if body.top_k is None else max(0, body.top_k),
        min_p=body.min_p,
        repetition_penalty=body.repetition_penalty,
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
        logit_bias=_logit_bias(body.logit_bias, model.tokenizer.vocab_size),
        seed=None if body.seed is None else body.seed % 2**63,
        logprobs=logprobs,
        grammar=grammar,
    )


def _logit_bias(bias: dict[str, float] | None, vocab_size: int) -> dict[int, float] | None:
    if bias is None:
        return None
    unknown = next((token for token in bias if int(token) >= vocab_size), None)
    if unknown is not None:
        raise InvalidInput(f"token {unknown} is outside the {vocab_size} tokens of the vocabulary", param="logit_bias")
    return {int(token): value for token, value in bias.items()}


async def encode(encoder: Callable[[], list[int]], characters: int) -> list[int]:
    """Token ids from `encoder`, without holding up other requests while it works on a long text."""
    return encoder() if characters <= LONG_TEXT else await asyncio.to_thread(encoder)


def check_stream_options(body: GenerationRequest) -> bool:
    """Whether the stream is to end with the usage. Raises `InvalidInput` for options of a stream without one."""
    if body.stream_options is None:
        return False
    if not body.stream:
        raise InvalidInput("stream_options is only possible when stream is true", param="stream_options")
    return bool(body.stream_options.include_usage)
