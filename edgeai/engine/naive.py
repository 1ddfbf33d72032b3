"""The naive greedy loop: one sequence, one token at a time, nothing cached or shared. Oracle of the engine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeai.engine.adapters import Adapter
from edgeai.engine.constraint import Constraint, Grammar
from edgeai.engine.runner import Logits, Runner
from edgeai.engine.wind_down import choose


def greedy(
    runner: Runner,
    prompt: Sequence[int],
    max_tokens: int,
    adapter: Adapter | None = None,
    grammar: Grammar | None = None,
) -> list[int]:
    """The likeliest continuation of `prompt`, up to and including an end token; under a grammar up to the only end."""
    output: list[int] = []
    constraint = None if grammar is None else grammar.start()
    logits = runner.prefill(0, prompt, 0, adapter)
    while True:
        output.append(_likeliest(logits, constraint, max_tokens - len(output)))
        if len(output) == max_tokens or output[-1] in runner.shape.eos_token_ids:
            return output
        if constraint is not None:
            constraint.commit(output[-1])
            if constraint.over(()):
                return output
        logits = runner.decode([output[-1]], [len(prompt) + len(output) - 1], [adapter])[0]


def _likeliest(logits: Logits, constraint: Constraint | None, left: int) -> int:
    if constraint is None:
        return int(logits.argmax())
    return choose(
        lambda mask: int(np.where(mask, logits, -np.inf).argmax()), constraint.masks(())[0], constraint, (), left
    )
