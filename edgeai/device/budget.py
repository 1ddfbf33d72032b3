"""How much memory a language model may use here, and what that allows: integer arithmetic, no tensors.

What is free is divided in this order: what loading the model takes, a reserve that stays free, the buffers of a run
(onnxruntime keeps the largest it ever needed), and the KV cache, which running conversations and the prefix cache
share. What does not fit is made smaller: first chunks, then rows, then the context. A plan is made before the model is
loaded, from estimates, and where memory is tight once more from what was measured with the model in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeai.device.profile import Memory
from edgeai.errors import OutOfMemory

MIB = 1 << 20
LOADED = (7, 4)  # bytes in memory at most for bytes of weights: packed once more, some widened (measured: 1.5 to 1.6)
LOADING = 2  # the same while it is being loaded, when both forms of a weight are in memory (measured: 2.1)
TEXT_BYTES = 512  # of tokenizer for each of its tokens
SERVER_BYTES = 16 * MIB  # what a server imports beside the model
SCRATCH_WIDTH = 320  # bytes of buffers for each position and unit of the hidden size (measured: 190 to 300)
RESERVE_PARTS, LEAST_RESERVE, MOST_RESERVE = 10, 24 * MIB, 256 * MIB
SCRATCH_PARTS = 4  # a run's buffers may take this part of what the KV cache would have without them
LEAST_CONTEXT = 256  # tokens; with less there is no conversation
LEAST_CHUNK = 16  # tokens; a smaller chunk costs about as much as one token
PLENTY = 256 * MIB  # with more left for the KV cache than this and than the weights, estimates are good enough


@dataclass(frozen=True, slots=True)
class Costs:
    """Bytes: `load` to be taken by loading, `position` of buffers for each position of a run, `row` of logits for each
    row, `token` of KV cache, `peak` what has to be free while loading. `draft` is how many positions a decoding row may
    have beyond its newest token, `copies` how often a run may copy what the KV cache holds.
    """

    load: int
    position: int
    row: int
    token: int
    draft: int = 0
    peak: int = 0
    copies: int = 0

    def scratch(self, rows: int, chunk: int) -> int:
        """Bytes of the buffers of the largest run: a chunk, or the verification of every row's draft."""
        return max(chunk, rows * (1 + self.draft)) * self.position + rows * self.row


@dataclass(frozen=True, slots=True)
class Wishes:
    """What to have if memory allows it; `context_asked`: a shorter context will not do. `kv_bytes` is the most."""

    context: int
    rows: int
    chunk: int
    kv_bytes: int | None = None
    context_asked: bool = False


@dataclass(frozen=True, slots=True)
class Claim:
    """One model's claim to the KV cache's memory: `token` bytes for each token, `most` bytes in all."""

    token: int
    most: int


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """What a model gets. Bytes and tokens; `context` is of one sequence, `kv_bytes` of all and the prefix cache."""

    available: int
    load: int
    reserve: int
    scratch: int
    kv_bytes: int
    rows: int
    context: int
    chunk: int
    tight: bool  # whether an estimate's error could matter: measure, then plan again

    def explain(self) -> str:
        """One line for logs and `doctor`."""
        return (
            f"{_mib(self.available)} free: {_mib(self.load)} model, {_mib(self.scratch)} buffers,"
            f" {_mib(self.kv_bytes)} KV cache, {_mib(self.reserve)} reserve;"
            f" {self.rows} rows, {self.context} tokens of context, chunks of {self.chunk}"
        )


def estimate(
    *, weights: int, hidden: int, vocab: int, token: int, draft: int, scales: int = 0, copies: int = 0
) -> Costs:
    """Costs of a model that is not loaded: `weights` bytes on disk, `token` bytes of KV cache for a token.

    `scales` of the bytes on disk are scales in float32, which take no more memory than half as many in float16, for
    loading widens those.
    """
    logits = (1 + draft) * vocab * 4
    copied = weights - scales // 2
    peak = copied * LOADING + vocab * TEXT_BYTES + SERVER_BYTES
    return Costs(copied * LOADED[0] // LOADED[1], hidden * SCRATCH_WIDTH, logits, token, draft, peak, copies)


def loaded(token: int, copies: int = 0) -> Costs:
    """Costs once the model is loaded and has run at its largest: all but the KV cache is paid, and copies of it."""
    return Costs(0, 0, 0, token, copies=copies)


def reserve_bytes(memory: Memory) -> int:
    """What has to stay free: for hot file pages, for requests on their way, and for a neighbour's next step."""
    return min(MOST_RESERVE, max(LEAST_RESERVE, memory.size // RESERVE_PARTS))


def plan(memory: Memory, costs: Costs, wishes: Wishes) -> MemoryPlan:
    """Divide what is free. Raises `OutOfMemory` when not even `LEAST_CONTEXT` tokens fit, or loading would not."""
    reserve = reserve_bytes(memory)
    free = memory.available - reserve - costs.load
    rows, chunk = _buffers(free, costs, wishes)
    scratch = costs.scratch(rows, chunk)
    room = (free - scratch) // (1 + costs.copies)
    least = min(LEAST_CONTEXT, wishes.context) * costs.token
    if room < least or memory.available < costs.peak:
        raise _too_small(memory, least, reserve, costs)
    # Other programs share the machine's own memory; that of a control group is for what runs in it.
    shared = memory.limit is None
    kv_bytes = min(2 * rows * wishes.context * costs.token, max(least, room // 2) if shared else room)
    if wishes.kv_bytes is not None:
        kv_bytes = min(wishes.kv_bytes, room)
    elif kv_bytes < rows * least:
        rows = kv_bytes // least
    context = wishes.context if wishes.context_asked else min(wishes.context, kv_bytes // costs.token)
    return MemoryPlan(
        available=memory.available,
        load=costs.load,
        reserve=reserve,
        scratch=scratch,
        kv_bytes=kv_bytes,
        rows=rows,
        context=context,
        chunk=chunk,
        tight=room < max(PLENTY, costs.load),
    )


def fixed_plan(memory: Memory, costs: Costs, scratch: int) -> int:
    """Bytes of a model without a KV cache, whose runs take `scratch`. Raises `OutOfMemory` when it does not fit."""
    needed = max(costs.peak, costs.load + scratch)
    if needed + reserve_bytes(memory) > memory.available:
        raise _refusal(memory, needed + reserve_bytes(memory))
    return needed


def shares(room: int, claims: Sequence[Claim]) -> list[int]:
    """Bytes of `room` for each model's KV cache: the same number of tokens for all, where none has its most already.

    No model gets less than `LEAST_CONTEXT` tokens, however little room there is.
    """
    given = [0] * len(claims)
    open_claims = sorted(range(len(claims)), key=lambda i: claims[i].most / claims[i].token)
    weight = sum(claim.token for claim in claims)
    for index in open_claims:  # those that are content with the fewest tokens first
        claim = claims[index]
        given[index] = min(claim.most, max(room, 0) * claim.token // weight)
        room, weight = room - given[index], weight - claim.token
    return [
        max(min(claim.most, LEAST_CONTEXT * claim.token), share) for claim, share in zip(claims, given, strict=True)
    ]


def _buffers(free: int, costs: Costs, wishes: Wishes) -> tuple[int, int]:
    """Rows and chunk whose buffers leave most of what is free to the KV cache: chunks give way before rows."""
    rows, chunk = wishes.rows, wishes.chunk
    while costs.scratch(rows, chunk) * SCRATCH_PARTS > free:
        if chunk > max(LEAST_CHUNK, rows * (1 + costs.draft)):
            chunk = max(LEAST_CHUNK, chunk // 2)
        elif rows > 1:
            rows = max(1, rows // 2)
        elif chunk > LEAST_CHUNK:
            chunk = max(LEAST_CHUNK, chunk // 2)
        else:
            break
    return rows, chunk


def _too_small(memory: Memory, least: int, reserve: int, costs: Costs) -> OutOfMemory:
    return _refusal(
        memory, max(costs.peak, costs.load + costs.scratch(1, LEAST_CHUNK) + least * (1 + costs.copies) + reserve)
    )


def _refusal(memory: Memory, needed: int) -> OutOfMemory:
    where = "" if memory.limit is None else f" of the {_mib(memory.limit)} that the control group allows"
    return OutOfMemory(
        f"the model needs about {_mib(needed)} more memory, {_mib(memory.available)}{where} are free",
        "stop other programs, raise the limit, or use a smaller model",
    )


def _mib(size: int) -> str:
    return f"{size / MIB:.0f} MiB"
