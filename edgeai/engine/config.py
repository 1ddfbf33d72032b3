"""What the engine is told once, when it is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

GIB = 1 << 30
KVType = Literal["float32", "int8"]
KV_BYTES: dict[KVType, int] = {"float32": 4, "int8": 1}
Runtime = Literal["fused", "exported", "exported-unpadded"]
COPIES: dict[Runtime, int] = {"fused": 0, "exported": 4, "exported-unpadded": 2}


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The sizes of a graph's cache and output, from the package's manifest."""

    vocab_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_size: int
    context_length: int
    eos_token_ids: frozenset[int] = frozenset()
    runtime: Runtime = "fused"  # which runner the graph needs
    kv_type: KVType = "float32"  # of the graph's cache

    @property
    def token_bytes(self) -> int:
        """Bytes that one token takes in the KV cache."""
        return self.num_layers * 2 * self.num_kv_heads * self.head_size * KV_BYTES[self.kv_type]

    @property
    def copies(self) -> int:
        """How often a run may copy what running sequences have in the KV cache: exported graphs take all of it and
        return it, padded to at most twice its length (`exported_runner`).
        """
        return COPIES[self.runtime]


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How much of the machine an engine may use.

    `kv_budget_bytes` covers running sequences and the prefix cache together. `max_context` shortens the model's own
    context. `chunk_tokens` is the most prompt tokens in one step; fewer are taken while others are decoding, so that a
    step lasts no longer than `latency_seconds` at the speed that was measured. `max_queue` requests may wait beyond
    those that there are free rows for, and `max_queue_per_client` of one client (None: half of all). `spin_us`, `cpus`
    and `whole_scores` are those of `OnnxSession`.
    """

    threads: int = 2
    kv_type: KVType = "float32"  # int8 takes a quarter of the memory, and prompts longer; for packages that have it
    spin_us: int | None = None
    cpus: tuple[int, ...] = ()
    whole_scores: bool = True  # where `scratch_bytes` hold them
    prompt_weights: bool = True  # read prompts with weights of their own, where the package and memory have them
    max_rows: int = 8
    max_queue: int = 64
    max_queue_per_client: int | None = None
    max_context: int | None = None
    kv_budget_bytes: int = GIB
    prefix_cache: bool = True
    block_tokens: int = 32
    chunk_tokens: int = 128
    latency_seconds: float = 0.25  # between two tokens of a row, while somebody's prompt is read
    draft_tokens: int = 10  # the most tokens that are drafted for one row at a time; 0: no speculation
    max_adapters: int = 4  # different ones that decode at the same time; requests for more wait for a row of another
    scratch_bytes: int = 64 << 20  # for attention scores of one chunk: heads * chunk * capacity floats
    tight: bool = False  # memory is scarce: once the model is loaded, measure, and lower the budget to what is left
