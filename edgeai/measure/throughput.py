"""Tokens per second of an engine, as its users see them: through its own step loop, sampling included."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edgeai.engine.engine import Engine
from edgeai.engine.request import SamplingParams

PREFILL_TOKENS = 512
DECODE_CONTEXT = 128
DECODE_TOKENS = 48
BATCH = 8

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Throughput:
    """Medians over all rounds, in tokens per second."""

    prefill_512: float
    decode_128: float
    decode_batch8: float


def random_prompt(engine: Engine, length: int, seed: int) -> list[int]:
    """A prompt that no cache has seen: throughput does not depend on what the tokens are."""
    rng = np.random.default_rng(seed)
    return [int(token) for token in rng.integers(3, engine.shape.vocab_size, length)]


def prefill_speed(
    engine: Engine, tokens: int = PREFILL_TOKENS, *, seed: int = 0, clock: Clock = time.perf_counter
) -> float:
    """Prompt tokens per second of one request on an idle engine, up to its first token. `clock` counts the seconds."""
    prompt = random_prompt(engine, tokens, seed)
    started = clock()
    _run(engine, [prompt], 1)
    return tokens / (clock() - started)


def decode_speed(
    engine: Engine,
    context: int = DECODE_CONTEXT,
    *,
    rows: int = 1,
    seed: int = 0,
    clock: Clock = time.perf_counter,
) -> float:
    """New tokens per second, summed over `rows` requests that decode together at a context of about `context`."""
    times: list[float] = []
    prompts = [random_prompt(engine, context, seed + row) for row in range(rows)]
    _run(engine, prompts, DECODE_TOKENS + rows, on_full_step=times.append, clock=clock)
    return rows / float(np.median(times))


def measure(engine: Engine, *, rounds: int = 3) -> Throughput:
    """Prefill, decode and batched decode, round by round. The prefix cache never helps: no prompt comes twice."""
    batch = min(BATCH, engine.settings.max_rows)
    _run(engine, [random_prompt(engine, 32, 0)], 4)  # warms up; seeds from 1 on are measured
    results = [
        (
            prefill_speed(engine, seed=100 * number + 1),
            decode_speed(engine, seed=100 * number + 2),
            decode_speed(engine, rows=batch, seed=100 * number + 3),
        )
        for number in range(rounds)
    ]
    return Throughput(*(round(float(np.median(column)), 2) for column in zip(*results, strict=True)))


def _run(
    engine: Engine,
    prompts: Sequence[Sequence[int]],
    max_tokens: int,
    on_full_step: Callable[[float], object] | None = None,
    clock: Clock = time.perf_counter,
) -> None:
    """Run requests to their end, reporting the seconds of each step in which all of them decoded."""
    params = SamplingParams(max_tokens=max_tokens, temperature=0, ignore_eos=True)
    for number, prompt in enumerate(prompts):
        engine.add(f"throughput {number}", prompt, params)
    while engine.has_work:
        started = clock()
        outputs = engine.step()
        seconds = clock() - started
        if on_full_step and len(outputs) == len(prompts) and all(output.finish_reason is None for _, output in outputs):
            on_full_step(seconds)
