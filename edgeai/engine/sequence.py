"""A request on its way through the engine."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Sequence as Tokens
from dataclasses import dataclass, field

from edgeai.engine.adapters import Adapter
from edgeai.engine.constraint import Constraint
from edgeai.engine.prefix_cache import ROOT
from edgeai.engine.request import FinishReason, SamplingParams
from edgeai.engine.speculative import Drafter

_arrivals = itertools.count()


@dataclass(slots=True, eq=False)
class Sequence:
    """Tokens of one request: the prompt, then what was sampled. `computed` of them have keys and values in `slot`."""

    request_id: str
    tokens: list[int]
    prompt_tokens: int
    params: SamplingParams
    seed: int
    adapter: Adapter | None = None
    arrival: int = field(default_factory=lambda: next(_arrivals))
    slot: int | None = None
    computed: int = 0
    cached_tokens: int = 0
    preempted: int = 0
    finish_reason: FinishReason | None = None
    drafter: Drafter = field(default_factory=Drafter)
    constraint: Constraint | None = None

    @classmethod
    def start(
        cls, request_id: str, prompt: Tokens[int], params: SamplingParams, adapter: Adapter | None = None
    ) -> Sequence:
        seed = secrets.randbits(63) if params.seed is None else params.seed
        constraint = None if params.grammar is None else params.grammar.start()
        return cls(request_id, list(prompt), len(prompt), params, seed, adapter, constraint=constraint)

    @property
    def output(self) -> list[int]:
        return self.tokens[self.prompt_tokens :]

    @property
    def cache_root(self) -> bytes:
        """What its blocks in the prefix cache begin with: another adapter gives the same tokens other values."""
        return ROOT if self.adapter is None else self.adapter.key

    @property
    def decoding(self) -> bool:
        """Whether only the newest token is still to be computed."""
        return self.slot is not None and self.computed == len(self.tokens) - 1 and len(self.tokens) > self.prompt_tokens
