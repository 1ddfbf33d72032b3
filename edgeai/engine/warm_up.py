"""Runs a model at its largest, measures what is then left, and lowers the KV budget to that.

onnxruntime keeps the largest buffers that it ever needed. Once the largest chunk and the largest verification have been
run, nothing but the KV cache grows any more.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from edgeai.device.budget import Wishes, loaded, plan
from edgeai.device.heap import trim_heap
from edgeai.device.profile import read_memory
from edgeai.engine.chunking import ChunkSizer
from edgeai.engine.config import EngineSettings
from edgeai.engine.runner import Runner

TIMES = 2  # the second run of a shape follows a memory plan of its own, made in the first

log = logging.getLogger("edgeai.memory")


def settle(runner: Runner, settings: EngineSettings, context_length: int) -> EngineSettings:
    """`settings` with a KV budget that fits what is left once the model has run at its largest.

    Raises `OutOfMemory` when that is too little.
    """
    chunk = ChunkSizer(settings, runner.shape, runner.arena.capacity).most
    warm_up(runner, settings, chunk, context_length)
    trim_heap()
    wishes = Wishes(context_length, settings.max_rows, chunk, kv_bytes=settings.kv_budget_bytes)
    made = plan(read_memory(), loaded(runner.shape.token_bytes, runner.shape.copies), wishes)
    log.info("memory, measured with the model loaded: %s", made.explain())
    return replace(settings, kv_budget_bytes=made.kv_bytes)


def warm_up(runner: Runner, settings: EngineSettings, chunk: int, context_length: int) -> None:
    """A chunk at the context's end, and a verification of every row's longest draft; the KV arena is empty again.

    Where runs copy what rows have, all rows together have no more than one context: more may not fit the budget.
    """
    rows = settings.max_rows
    chunk = min(chunk, context_length)
    longest = max(1, context_length // rows) if runner.shape.copies else context_length
    draft = min(settings.draft_tokens, longest - 1)
    end = longest - draft - 1
    for _ in range(TIMES):
        for row in range(rows):
            runner.arena.grow(row, context_length)  # counted, so that it is given back; few of its pages are written
        runner.prefill(0, [0] * chunk, context_length - chunk)
        runner.decode([0] * rows, [end] * rows)
        if draft:
            runner.verify([[0] * (1 + draft)] * rows, [end] * rows)
        for row in range(rows):
            runner.arena.release(row)
