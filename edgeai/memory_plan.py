"""What of the device's memory a package's model gets: `device.budget` applied to a manifest and to engine settings."""

from __future__ import annotations

import logging
from dataclasses import replace

from edgeai.device.budget import MemoryPlan, Wishes, estimate, fixed_plan, plan, reserve_bytes
from edgeai.device.heap import trim_heap
from edgeai.device.pressure import MemoryGauge
from edgeai.device.profile import Memory, read_memory
from edgeai.encoder.batches import Limits, longest
from edgeai.engine.config import EngineSettings, ModelShape
from edgeai.engine.governor import Governor
from edgeai.package.manifest import WEIGHTS_NAME, Manifest

ENCODER_WIDTH = 64  # bytes of buffers for each token of a run and unit of the hidden size (measured: 53 to 59)
SCORE_COPIES = 2  # of attention scores, where attention is not fused: before the softmax and after (measured: 1.8)

log = logging.getLogger("edgeai.memory")


def plan_for(
    manifest: Manifest, shape: ModelShape, settings: EngineSettings, memory: Memory, *, kv_bytes: int | None = None
) -> MemoryPlan:
    """The plan for a model that is not loaded yet; `kv_bytes` is the most its KV cache may have.

    Raises `OutOfMemory` when it does not fit.
    """
    architecture = manifest.architecture
    costs = estimate(
        weights=manifest.files[WEIGHTS_NAME].size,
        hidden=architecture.hidden_size,
        vocab=architecture.vocab_size,
        token=shape.token_bytes,
        draft=settings.draft_tokens,
        scales=manifest.quantization.scale_bytes,
        copies=shape.copies,
    )
    wishes = Wishes(
        context=min(shape.context_length, settings.max_context or shape.context_length),
        rows=settings.max_rows,
        chunk=settings.chunk_tokens,
        kv_bytes=kv_bytes,
        context_asked=settings.max_context is not None,
    )
    return plan(memory, costs, wishes)


def plan_for_encoder(manifest: Manifest, memory: Memory) -> int:
    """Bytes that an embedding model or reranker takes, loaded and at work. Raises `OutOfMemory` if there are fewer."""
    architecture = manifest.architecture
    costs = estimate(
        weights=manifest.files[WEIGHTS_NAME].size,
        hidden=architecture.hidden_size,
        vocab=architecture.vocab_size,
        token=0,
        draft=0,
    )
    return fixed_plan(memory, costs, encoder_scratch(manifest))


def encoder_scratch(manifest: Manifest, limits: Limits | None = None) -> int:
    """Bytes of the buffers of an encoder's largest run: activations, and attention scores where they are not fused."""
    limits, architecture = limits or Limits(), manifest.architecture
    length = longest(manifest)
    tokens = max(length, limits.tokens)
    scores = architecture.num_heads * length * tokens  # of as many sequences of the longest kind as run together
    return tokens * architecture.hidden_size * ENCODER_WIDTH + SCORE_COPIES * 4 * scores


def planned(
    manifest: Manifest, shape: ModelShape, settings: EngineSettings, *, kv_bytes: int | None = None
) -> EngineSettings:
    """`settings` within the memory of this machine now. Raises as `plan_for` does."""
    trim_heap()
    made = plan_for(manifest, shape, settings, read_memory(), kv_bytes=kv_bytes)
    log.info("memory for %s, estimated: %s", manifest.name, made.explain())
    return replace(
        settings,
        kv_budget_bytes=made.kv_bytes,
        max_rows=made.rows,
        chunk_tokens=made.chunk,
        whole_scores=settings.whole_scores and not made.tight,  # the plan has no room for them
        tight=made.tight,
    )


def make_governor() -> Governor:
    """What keeps an engine within this machine's memory and the control group's."""
    return Governor(MemoryGauge(), reserve_bytes(read_memory()))
