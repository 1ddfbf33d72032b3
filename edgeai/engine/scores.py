"""Attention scores of a chunk: whole where they fit into the scratch memory, else tile by tile.

Whole they take heads * tokens * capacity floats, and are faster over a cache of floats (docs/performance.md). Over one
of int8 only decoding is, which needs a hundredth of that: they are whole there where prompts have their own session.
"""

from __future__ import annotations

from dataclasses import replace

from edgeai.engine.config import EngineSettings, ModelShape


def with_scores_that_fit(
    settings: EngineSettings, shape: ModelShape, capacity: int, *, own_prompts: bool = False
) -> EngineSettings:
    """`settings`, with scores tile by tile if whole ones gain nothing, or take more than `scratch_bytes`.

    `own_prompts`: chunks of prompts have a session of their own, as a rule.
    """
    wanted = settings.chunk_tokens * token_bytes(shape, capacity)
    pays = (shape.kv_type == "float32" or own_prompts) and wanted <= settings.scratch_bytes
    return replace(settings, whole_scores=settings.whole_scores and pays)


def largest_chunk(settings: EngineSettings, shape: ModelShape, capacity: int) -> int:
    """Tokens of a chunk whose scores fit; exported graphs know no tiles."""
    if shape.runtime == "fused" and not settings.whole_scores:
        return settings.chunk_tokens
    return min(settings.chunk_tokens, settings.scratch_bytes // token_bytes(shape, capacity))


def token_bytes(shape: ModelShape, capacity: int) -> int:
    """Bytes of one token's scores over `capacity` positions."""
    return shape.num_heads * capacity * 4
