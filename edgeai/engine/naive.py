"""The naive greedy loop: one sequence, one token at a time, nothing cached or shared. Oracle of the engine."""

from __future__ import annotations

from collections.abc import Sequence

from edgeai.engine.adapters import Adapter
from edgeai.engine.runner import Runner


def greedy(runner: Runner, prompt: Sequence[int], max_tokens: int, adapter: Adapter | None = None) -> list[int]:
    """The likeliest continuation of `prompt`, up to and including an end token."""
    output: list[int] = []
    logits = runner.prefill(0, prompt, 0, adapter)
    while True:
        output.append(int(logits.argmax()))
        if len(output) == max_tokens or output[-1] in runner.shape.eos_token_ids:
            return output
        logits = runner.decode([output[-1]], [len(prompt) + len(output) - 1], [adapter])[0]
