"""Greedy continuations whose tokens are compared: what was answered, by how much it was clear, where answers part."""

from __future__ import annotations

import math
from dataclasses import dataclass

from patience import PATIENCE
from server_client import call

NEAR_TIE = 0.5  # nats; int4 kernels round differently at other row counts, which decides only between near equals


@dataclass(frozen=True)
class Answer:
    """Tokens with their log probabilities and those of the alternatives; or the status and Retry-After of a refusal."""

    status: int
    retry_after: str | None = None
    tokens: tuple[str, ...] = ()
    logprobs: tuple[float, ...] = ()
    likely: tuple[dict[str, float], ...] = ()
    cached: int = 0  # tokens of the prompt that needed no computing

    @property
    def lead(self) -> float:
        """By how many nats the least clear token leads. Needs two alternatives or more."""
        best_two = (sorted(top.values())[:-3:-1] for top in self.likely)
        return min(one - other for one, other in best_two)


def ask(
    base_url: str, prompt: str, *, max_tokens: int, alternatives: int, key: str = "any", timeout: float = PATIENCE
) -> Answer:
    """The greedy continuation of a prompt. Raises OSError and http.client.HTTPException when the server is gone."""
    body = {"prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "logprobs": alternatives}
    body |= {"repetition_penalty": 1.0, "logit_bias": {}}
    response = call(base_url, "/v1/completions", body, key=key, timeout=timeout)
    if response.status != 200:
        return Answer(response.status, response.headers.get("retry-after"))
    found = response.document["choices"][0]["logprobs"]
    cached = response.document["usage"]["prompt_tokens_details"]["cached_tokens"]
    return Answer(
        200, None, tuple(found["tokens"]), tuple(found["token_logprobs"]), tuple(found["top_logprobs"]), cached
    )


def tie(one: Answer, other: Answer) -> float | None:
    """By how many nats `one` preferred its token where two greedy answers part; None where they never do.

    Behind that token each goes on in its own way. Infinite when the other's choice was not among the likely ones.
    """
    for token, likely, else_token in zip(one.tokens, one.likely, other.tokens, strict=False):
        if token != else_token:
            return likely[token] - likely[else_token] if else_token in likely else math.inf
    return None if len(one.tokens) == len(other.tokens) else math.inf


def same(one: Answer, other: Answer) -> bool:
    """Whether two greedy answers are equal, or up to a near tie."""
    return one.status == other.status and (tie(one, other) or 0.0) < NEAR_TIE


def equal(one: Answer, other: Answer) -> bool:
    """Whether two answers are the same to the token."""
    return one.tokens == other.tokens
