"""State types of the engine: what a client asks for and what comes back. Token ids only, no text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from edgeai.engine.constraint import Grammar


class FinishReason(StrEnum):
    """Why a sequence ended."""

    STOP = "stop"  # an end-of-text or stop token was sampled, or nothing else could follow
    LENGTH = "length"  # max_tokens, the context or the deadline was reached
    CANCELLED = "cancelled"  # the client went away


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to choose tokens. Defaults are neutral: sample from the model's own distribution.

    `temperature` 0 means greedy. Penalties follow their usual definitions: repetition (Keskar et al. 2019, CTRL)
    divides or multiplies logits of tokens seen in prompt or output; presence and frequency (OpenAI) are subtracted
    for tokens seen in the output. The order is grammar, bias, penalties, temperature, top-k, top-p, min-p.
    """

    max_tokens: int = 256
    temperature: float = 1.0
    top_k: int = 0  # 0: no limit
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None  # None: drawn afresh for every request
    stop_token_ids: frozenset[int] = frozenset()  # in addition to the model's own end tokens
    ignore_eos: bool = False
    logprobs: int | None = None  # None: none; n: of the chosen token and the n most likely ones
    grammar: Grammar | None = None  # what may be said; the end token only where it is complete, and then it ends


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token with its natural-log probability under the model's unmodified distribution."""

    token_id: int
    logprob: float


@dataclass(frozen=True, slots=True)
class TokenOutput:
    """One sampled token, as the engine emits it."""

    token_id: int
    logprob: TokenLogprob | None = None
    top_logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason | None = None  # set on the last token of a sequence
    cached_tokens: int = 0  # prompt tokens that came from the prefix cache
    completes: bool = False  # a grammar's text, behind which nothing but the end could follow

    @property
    def is_end(self) -> bool:
        """Whether this is an end or stop token, which is no part of the text."""
        return self.finish_reason is FinishReason.STOP and not self.completes


@dataclass(frozen=True, slots=True)
class MemoryState:
    """How an engine fares for memory: the governor's `level`, 0 being normal, with its name.

    `available` bytes were left at the last reading, None before the first; `kills` counts processes that the kernel
    killed for memory in this control group since the start.
    """

    level: int = 0
    name: str = "normal"
    available: int | None = None
    kills: int = 0


@dataclass(frozen=True, slots=True)
class EngineStats:
    """A snapshot of the engine for metrics and status pages."""

    running: int
    waiting: int
    kv_used_bytes: int
    kv_budget_bytes: int
    prefix_cache_hit_tokens: int
    prompt_tokens: int
    generated_tokens: int
    preemptions: int
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    memory: MemoryState = MemoryState()
    alive: bool = True  # whether the engine comes back from its work
    rows: int = 0  # that may run at once, as memory is now; of an `AsyncEngine` as power is, too
    expired: int = 0  # requests that were refused or ended for their deadline
    kv_written_bytes: int = 0  # those of `kv_used_bytes` that are not only reserved, and so in memory
    queued: Mapping[str, int] = field(default_factory=dict)  # of those that wait, by class
