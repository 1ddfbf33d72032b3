"""Requests that can never be served are refused before they are queued."""

from __future__ import annotations

from collections.abc import Sequence

from edgeai.engine.request import SamplingParams
from edgeai.errors import ContextLengthExceeded, InvalidInput

MAX_LOGPROBS = 20

# name: (lowest, highest); None is no limit
RANGES: dict[str, tuple[float | None, float | None]] = {
    "max_tokens": (1, None),
    "temperature": (0, 5),
    "top_k": (0, None),
    "top_p": (0, 1),
    "min_p": (0, 1),
    "repetition_penalty": (0.01, 10),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
    "logprobs": (0, MAX_LOGPROBS),
}


def check_params(params: SamplingParams, vocab_size: int) -> None:
    """Raise `InvalidInput` naming the parameter that is out of range."""
    for name, (low, high) in RANGES.items():
        value = getattr(params, name)
        if value is None:
            continue
        # written so that NaN fails
        if not ((low is None or value >= low) and (high is None or value <= high)):
            limits = f"at least {low}" if high is None else f"between {low} and {high}"
            raise InvalidInput(f"{name} is {value}; it has to be {limits}", param=name)
    for token, bias in params.logit_bias.items():
        if not 0 <= token < vocab_size or not -1000 <= bias <= 1000:
            hint = f"token ids are 0 to {vocab_size - 1}, biases -1000 to 1000"
            raise InvalidInput(f"logit_bias has {token}: {bias}", hint, param="logit_bias")


def check_prompt(prompt: Sequence[int], vocab_size: int, context_length: int) -> None:
    """Raise `InvalidInput` for an empty or impossible prompt, `ContextLengthExceeded` for one that is too long."""
    if not prompt:
        raise InvalidInput("the prompt is empty", "send at least one token", param="prompt")
    if len(prompt) >= context_length:
        raise ContextLengthExceeded(
            f"the prompt has {len(prompt)} tokens; the context holds {context_length}, one of them for the answer",
            f"shorten the prompt by {len(prompt) - context_length + 1} tokens",
            param="messages",
        )
    if min(prompt) < 0 or max(prompt) >= vocab_size:
        wrong = next(token for token in prompt if not 0 <= token < vocab_size)
        raise InvalidInput(f"token id {wrong} is not in the vocabulary of {vocab_size}", param="prompt")
