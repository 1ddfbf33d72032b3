"""A scheduler as integer arithmetic: an arena of address space, and nobody who computes."""

from __future__ import annotations

from dataclasses import replace

from edgeai.engine.config import EngineSettings, ModelShape
from edgeai.engine.kv_cache import GRANULE, KVArena
from edgeai.engine.prefix_cache import PrefixCache
from edgeai.engine.request import SamplingParams
from edgeai.engine.scheduler import Plan, Scheduler
from edgeai.engine.sequence import Sequence
from edgeai.engine.terms import Terms

SHAPE = ModelShape(vocab_size=1, num_layers=1, num_heads=1, num_kv_heads=1, head_size=16, context_length=512)
SETTINGS = EngineSettings(max_rows=4, block_tokens=16, chunk_tokens=128, prefix_cache=False)


def scheduler(granules: int = 64, **changes) -> Scheduler:
    """A scheduler whose budget holds so many granules of tokens."""
    settings = replace(SETTINGS, kv_budget_bytes=granules * GRANULE * SHAPE.token_bytes, **changes)
    arena = KVArena(SHAPE, settings.max_rows, SHAPE.context_length)
    cache = PrefixCache(settings.block_tokens, settings.block_tokens * SHAPE.token_bytes)
    return Scheduler(settings, arena, cache, SHAPE)


def request(name: str, tokens: int, first: int = 0, **terms) -> Sequence:
    return Sequence.start(name, range(first, first + tokens), SamplingParams(), terms=Terms(**terms))


def step(books: Scheduler) -> Plan:
    """Schedule a step and pretend that it was run: every sequence that is due gets a token."""
    plan = books.fit(books.schedule(), 0.0)
    books.check_integrity()
    books.computed(plan, [1] * len(plan.decode))
    due = [*plan.decode, *([plan.prefill] if plan.prefill and plan.prefill in books.running else [])]
    for sequence in due:
        if sequence.computed == len(sequence.tokens):
            sequence.tokens.append(0)
    books.check_integrity()
    return plan


def start(books: Scheduler, *sequences: Sequence) -> None:
    """Let all sequences read their prompts."""
    for sequence in sequences:
        books.add(sequence)
    for _ in range(100):
        if all(sequence.decoding for sequence in sequences):
            return
        step(books)
    raise AssertionError(f"{sequences} never came to decode together")


def names(plan: Plan) -> tuple[list[str], str | None, int]:
    return [s.request_id for s in plan.decode], plan.prefill.request_id if plan.prefill else None, plan.chunk
