"""The work that is measured, run by an engine for about as long as it is told to.

    decode    one request writes, at a short context
    long      one request writes, at a long one
    batch     several write at once
    rows      as many write as the settings allow
    prefill   a prompt is read
    edit      one request rewrites a text, which is where drafts pay

Tokens a second, and processor time of this process, all threads and spinning included: what a battery pays.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from edgeai.engine.engine import Engine
from edgeai.engine.request import SamplingParams
from edgeai.errors import OutOfMemory
from edgeai.measure.throughput import random_prompt
from edgeai.model import Model
from edgeai.tuning.golden import engine_busy, question_tokens
from edgeai.tuning.knobs import Workload
from edgeai.tuning.profile import Figures

CONTEXT = 128  # tokens that a row has when it begins to write
BATCH_CONTEXT = 32  # reading the prompts of a batch takes time that is not measured
BATCH = 4
LONG = 2  # times the prompt that is measured
LEAST_STEPS = 4
EDIT = (
    "Rewrite this text word for word, but with 'river' in place of 'stream': The stream rises in the hills above the"
    " village and winds through meadows and woods before it reaches the lake. In spring the stream is high and fast,"
    " and children are told to keep away from it. In summer the stream is low, and they cross it on stepping stones."
)


@dataclass(frozen=True, slots=True)
class Order:
    """How much of the work to do. Prompts are made from `seed`: one that came before would be found in the cache."""

    seconds: float
    prompt_tokens: int
    seed: int


def measure(model: Model, workload: Workload, order: Order) -> Figures:
    """Do one workload on an idle engine."""
    return WORKLOADS[workload](model, order)


def decode(model: Model, order: Order) -> Figures:
    return _write(model.engine, _prompts(model.engine, 1, CONTEXT, order.seed), order.seconds)


def long(model: Model, order: Order) -> Figures:
    """The prompt is always the same: from the second time on it need not be read."""
    return _write(model.engine, _prompts(model.engine, 1, LONG * order.prompt_tokens, 0), order.seconds)


def batch(model: Model, order: Order) -> Figures:
    rows = min(BATCH, model.engine.settings.max_rows)
    return _write(model.engine, _prompts(model.engine, rows, BATCH_CONTEXT, order.seed), order.seconds)


def rows(model: Model, order: Order) -> Figures:
    engine = model.engine
    return _write(engine, _prompts(engine, engine.settings.max_rows, BATCH_CONTEXT, order.seed), order.seconds)


def edit(model: Model, order: Order) -> Figures:
    """As users get it, with drafts; the prompt is found in the cache from the second time on."""
    return _write(model.engine, [question_tokens(model, EDIT)], order.seconds, drafts=True)


def prefill(model: Model, order: Order) -> Figures:
    engine = model.engine
    prompt = random_prompt(engine, min(order.prompt_tokens, engine.context_length - 1), order.seed)
    engine.add("prefill", prompt, _params(1))
    with _stopwatch() as elapsed:
        while engine.has_work:
            engine.step()
    return elapsed(len(prompt))


WORKLOADS: Mapping[Workload, Callable[[Model, Order], Figures]] = {
    "decode": decode,
    "long": long,
    "batch": batch,
    "rows": rows,
    "prefill": prefill,
    "edit": edit,
}


def _write(engine: Engine, prompts: Sequence[Sequence[int]], seconds: float, *, drafts: bool = False) -> Figures:
    """All prompts are read, then their continuations are written together until time is up or one is at its end."""
    names = [f"write {number}" for number in range(len(prompts))]
    with engine_busy(engine, names, drafts=drafts):
        for name, prompt in zip(names, prompts, strict=True):
            engine.add(name, prompt, _params(engine.context_length - len(prompt)))
        _read_all(engine, len(prompts))
        tokens = steps = 0
        with _stopwatch() as elapsed:
            until = time.perf_counter() + seconds
            while steps < LEAST_STEPS or time.perf_counter() < until:
                outputs = engine.step()
                tokens, steps = tokens + len(outputs), steps + 1
                if any(output.finish_reason is not None for _, output in outputs):
                    break
        return elapsed(tokens)


def _read_all(engine: Engine, rows: int) -> None:
    """Steps until all rows have written a token together, which also warms up. Raises `OutOfMemory` if they cannot."""
    before = engine.stats().preemptions
    while len(outputs := engine.step()) < rows:
        if engine.stats().preemptions > before or any(output.finish_reason is not None for _, output in outputs):
            raise OutOfMemory(f"the KV budget does not hold {rows} rows", "raise the KV budget")


def _prompts(engine: Engine, count: int, length: int, seed: int) -> list[list[int]]:
    return [random_prompt(engine, min(length, engine.context_length // 2), seed + row) for row in range(count)]


def _params(max_tokens: int) -> SamplingParams:
    return SamplingParams(max_tokens=max_tokens, temperature=0, ignore_eos=True)


@contextmanager
def _stopwatch() -> Iterator[Callable[[int], Figures]]:
    """Times the block; what it yields then gives the figures of so many tokens."""
    started, cpu = time.perf_counter(), time.process_time()
    taken: list[float] = []
    yield lambda tokens: Figures(speed=round(tokens / taken[0], 3), cpu=round(1000 * taken[1] / tokens, 4))
    taken += [time.perf_counter() - started, time.process_time() - cpu]
