"""A request on its way through the engine."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Sequence as Tokens
from dataclasses import dataclass, field

from edgeai.engine.adapters import Adapter
from edgeai.engine.constraint import Constraint
from edgeai.engine.prefix_cache import ROOT, chain_keys
from edgeai.engine.request import FinishReason, SamplingParams
from edgeai.engine.speculative import Drafter
from edgeai.engine.terms import DEFAULT_TERMS, Terms

_arrivals = itertools.count()


@dataclass(slots=True, eq=False)
class Sequence:
    """Tokens of one request: the prompt, then what was sampled. `computed` of them have keys and values in `slot`.

    `charged` tokens of the prompt have been counted as served to the client, computed or found in the cache. `restored`
    are blocks that came from the store and have not been copied to the prefix cache.
    """

    request_id: str
    tokens: list[int]
    prompt_tokens: int
    params: SamplingParams
    seed: int
    adapter: Adapter | None = None
    terms: Terms = DEFAULT_TERMS
    arrival: int = field(default_factory=lambda: next(_arrivals))
    slot: int | None = None
    computed: int = 0
    cached_tokens: int = 0
    preempted: int = 0
    charged: int = 0
    restored: range = range(0)
    admitted: float | None = None  # when it was given a row first, by `time.monotonic`
    latest_start: float | None = None  # when its prompt has to be begun, for its deadline
    finish_reason: FinishReason | None = None
    drafter: Drafter = field(default_factory=Drafter)
    constraint: Constraint | None = None
    _keys: list[bytes] = field(default_factory=list)

    @classmethod
    def start(
        cls,
        request_id: str,
        prompt: Tokens[int],
        params: SamplingParams,
        adapter: Adapter | None = None,
        terms: Terms = DEFAULT_TERMS,
    ) -> Sequence:
        seed = secrets.randbits(63) if params.seed is None else params.seed
        constraint = None if params.grammar is None else params.grammar.start()
        return cls(request_id, list(prompt), len(prompt), params, seed, adapter, terms, constraint=constraint)

    @property
    def output(self) -> list[int]:
        return self.tokens[self.prompt_tokens :]

    @property
    def fresh(self) -> bool:
        """Whether nothing of its answer has been written yet."""
        return len(self.tokens) == self.prompt_tokens

    @property
    def cache_root(self) -> bytes:
        """What its blocks in the prefix cache begin with: another adapter gives the same tokens other values."""
        return ROOT if self.adapter is None else self.adapter.key

    def block_keys(self, tokens: int, block_tokens: int) -> list[bytes]:
        """Keys in the prefix cache of the whole blocks of the first `tokens`; each is made once."""
        known, wanted = len(self._keys), tokens // block_tokens
        if known < wanted:
            rest = self.tokens[known * block_tokens : wanted * block_tokens]
            self._keys += chain_keys(rest, block_tokens, self._keys[-1] if known else self.cache_root)
        return self._keys[:wanted]

    @property
    def decoding(self) -> bool:
        """Whether only the newest token is still to be computed."""
        return self.slot is not None and self.computed == len(self.tokens) - 1 and len(self.tokens) > self.prompt_tokens
