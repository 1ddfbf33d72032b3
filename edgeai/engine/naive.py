"""The naive greedy loop: one sequence, one token at a time, nothing cached or shared. Oracle of the engine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeai.engine.adapters import Adapter
from edgeai.engine.constraint import Grammar
from edgeai.engine.runner import Runner


def greedy(
    runner: Runner,
    prompt: Sequence[int],
    max_tokens: int,
    adapter: Adapter | None = None,
    grammar: Grammar | None = None,
) -> list[int]:
    """The likeliest continuation of `prompt` that the grammar allows, up to and including an end token."""
    output: list[int] = []
    constraint = None if grammar is None else grammar.start()
    logits = runner.prefill(0, prompt, 0, adapter)
    while True:
        if constraint is not None:
            logits = np.where(constraint.masks(())[0], logits, -np.inf)
        output.append(int(logits.argmax()))
        if len(output) == max_tokens or output[-1] in runner.shape.eos_token_ids:
            return output
        if constraint is not None:
            constraint.commit(output[-1])
        logits = runner.decode([output[-1]], [len(prompt) + len(output) - 1], [adapter])[0]
