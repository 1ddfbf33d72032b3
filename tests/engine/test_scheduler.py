"""The scheduler as integer arithmetic: an arena of address space, and nobody who computes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeai.engine.chunking import MIN_CHUNK
from edgeai.engine.config import EngineSettings, ModelShape
from edgeai.engine.kv_cache import GRANULE, KVArena
from edgeai.engine.prefix_cache import PrefixCache
from edgeai.engine.request import SamplingParams
from edgeai.engine.scheduler import Plan, Scheduler
from edgeai.engine.sequence import Sequence

SHAPE = ModelShape(vocab_size=1, num_layers=1, num_heads=1, num_kv_heads=1, head_size=16, context_length=512)
SETTINGS = EngineSettings(max_rows=4, block_tokens=16, chunk_tokens=128, chunk_seconds=0.2, prefix_cache=False)


def scheduler(granules: int = 64, **changes) -> Scheduler:
    """A scheduler whose budget holds so many granules of tokens."""
    settings = replace(SETTINGS, kv_budget_bytes=granules * GRANULE * SHAPE.token_bytes, **changes)
    arena = KVArena(SHAPE, settings.max_rows, SHAPE.context_length)
    cache = PrefixCache(settings.block_tokens, settings.block_tokens * SHAPE.token_bytes)
    return Scheduler(settings, arena, cache, SHAPE)


def request(name: str, tokens: int, first: int = 0) -> Sequence:
    return Sequence.start(name, range(first, first + tokens), SamplingParams())


def step(books: Scheduler) -> Plan:
    """Schedule a step and pretend that it was run: every sequence that is due gets a token."""
    plan = books.schedule()
    books.check_integrity()
    books.computed(plan, [1] * len(plan.decode))
    due = [*plan.decode, *([plan.prefill] if plan.prefill and plan.prefill in books.running else [])]
    for sequence in due:
        if sequence.computed == len(sequence.tokens):
            sequence.tokens.append(0)
    books.check_integrity()
    return plan


def start(books: Scheduler, *sequences: Sequence) -> None:
    """Let all sequences read their prompts."""
    for sequence in sequences:
        books.add(sequence)
    for _ in range(100):
        if all(sequence.decoding for sequence in sequences):
            return
        step(books)
    raise AssertionError(f"{sequences} never came to decode together")


def names(plan: Plan) -> tuple[list[str], str | None, int]:
    return [s.request_id for s in plan.decode], plan.prefill.request_id if plan.prefill else None, plan.chunk


def test_nothing_to_do() -> None:
    assert not scheduler().schedule()


def test_one_prompt_at_a_time_in_the_order_of_arrival() -> None:
    books = scheduler()
    for name, tokens in (("a", 200), ("b", 10), ("c", 10)):
        books.add(request(name, tokens))
    assert names(step(books)) == ([], "a", 128)
    assert names(step(books)) == ([], "a", 72)
    assert names(step(books)) == (["a"], "b", 10)
    assert names(step(books)) == (["a", "b"], "c", 10)
    assert names(step(books)) == (["a", "b", "c"], None, 0)


def test_no_more_rows_than_there_are() -> None:
    books = scheduler()
    sequences = [request(str(i), 10) for i in range(6)]
    start(books, *sequences[:4])
    for sequence in sequences[4:]:
        books.add(sequence)
    assert names(step(books)) == (["0", "1", "2", "3"], None, 0)
    books.remove(sequences[1])
    assert names(step(books)) == (["0", "3", "2"], "4", 10)  # the last row filled the gap


def test_rows_stay_adjacent_while_a_prompt_is_read() -> None:
    """A decoding row ends while the row behind it reads its prompt: the prompt's row moves when it is done."""
    books = scheduler(chunk_tokens=16)
    first, second, third = (request(name, 40) for name in "abc")
    start(books, first, second)
    books.add(third)
    step(books)
    assert third.slot == 2
    books.remove(first)
    assert (second.slot, third.slot) == (0, 2)
    books.check_integrity()
    while not third.decoding:
        step(books)
    assert (second.slot, third.slot) == (0, 1)


def test_an_idle_engine_reads_whole_chunks() -> None:
    books = scheduler()
    books.chunks.measured(100, 100.0)
    books.add(request("a", 300))
    assert [step(books).chunk for _ in range(3)] == [128, 128, 44]


@pytest.mark.parametrize(
    ("speed", "chunk"), [(None, 128), (1, 16), (80, 16), (239, 32), (240, 48), (600, 112), (1e6, 128)]
)
def test_chunks_follow_the_measured_speed_while_others_decode(speed: float | None, chunk: int) -> None:
    """At most `chunk_seconds` long, in multiples of the smallest chunk."""
    books = scheduler()
    start(books, request("a", 10))
    if speed is not None:
        books.chunks.speed = None
        books.chunks.measured(1000, 1000 / speed)
    books.add(request("b", 300))
    assert step(books).chunk == chunk


def test_recent_chunks_count_most() -> None:
    books = scheduler()
    for tokens, seconds in ((100, 1.0), (100, 0.5), (MIN_CHUNK - 1, 1000.0)):
        books.chunks.measured(tokens, seconds)
    assert books.chunks.speed == 150  # too short a chunk says nothing


def test_scratch_memory_bounds_the_chunk() -> None:
    """Attention scores of a chunk: heads * chunk * capacity floats."""
    capacity = KVArena(SHAPE, 1, SHAPE.context_length).capacity
    books = scheduler(scratch_bytes=40 * capacity * 4)
    books.add(request("a", 100))
    assert step(books).chunk == 40
    assert scheduler(scratch_bytes=1).chunks.most == MIN_CHUNK


def test_no_admission_beyond_the_budget() -> None:
    """A prompt waits until all its tokens fit, and one granule for each row that decodes."""
    books = scheduler(granules=4)
    start(books, request("a", 30))
    books.add(request("b", 2 * GRANULE))  # with its next token: three granules, and one of headroom
    assert names(step(books)) == (["a"], None, 0)
    books.remove(books.running[0])
    assert names(step(books)) == ([], "b", 128)


def test_a_later_request_does_not_overtake() -> None:
    books = scheduler(granules=4)
    start(books, request("a", 30))
    books.add(request("b", 3 * GRANULE))
    books.add(request("c", 5))
    assert names(step(books)) == (["a"], None, 0)


def test_the_youngest_gives_way() -> None:
    books = scheduler(granules=5)
    sequences = [request(name, 40) for name in "abc"]
    start(books, *sequences)
    while not books.preemptions:
        step(books)
    assert [s.request_id for s in books.waiting] == ["c"]
    assert [s.request_id for s in books.running] == ["a", "b"]
    assert (sequences[2].slot, sequences[2].computed, sequences[2].preempted) == (None, 0, 1)
    assert len(sequences[2].tokens) > 40  # it keeps what it had


def test_several_victims_return_in_the_order_of_arrival() -> None:
    books = scheduler(granules=6)
    sequences = [request(name, 40) for name in "abc"]
    start(books, *sequences)
    books.add(request("d", 5))
    while books.preemptions < 2:
        step(books)
    assert [s.request_id for s in books.waiting] == ["b", "c", "d"]
    assert [s.request_id for s in books.running] == ["a"]


def test_a_prompt_that_is_being_read_can_be_preempted() -> None:
    books = scheduler(granules=4, chunk_tokens=16)
    first, second = request("a", 60), request("b", 70)
    start(books, first)
    books.add(second)
    step(books)
    assert (second.slot, second.computed) == (1, 16)
    first.tokens += [0] * (2 * GRANULE)  # more than one step adds, to meet the prompt half read
    plan = books.schedule()
    books.check_integrity()
    assert names(plan) == (["a"], None, 0)
    assert list(books.waiting) == [second]


def test_the_prefix_cache_gives_way_before_sequences_do() -> None:
    books = scheduler(granules=6, prefix_cache=True)
    for name, first in (("a", 0), ("b", 1000)):
        sequence = request(name, 2 * GRANULE, first)
        start(books, sequence)
        books.remove(sequence)
    assert books._reuse._cache.used_bytes == 3 * GRANULE * SHAPE.token_bytes
    start(books, request("c", 4 * GRANULE, 2000))
    assert books.preemptions == 0
    assert books._reuse._cache.used_bytes <= GRANULE * SHAPE.token_bytes


def test_a_prompt_seen_before_is_not_read_again() -> None:
    books = scheduler(prefix_cache=True)
    first = request("a", 100)
    start(books, first)
    books.remove(first)
    again, longer, other = request("b", 100), request("c", 130), request("d", 100, first=1)
    for sequence, cached in ((again, 96), (longer, 96), (other, 0)):
        start(books, sequence)
        assert sequence.cached_tokens == cached
        books.remove(sequence)


def test_at_least_one_token_is_computed() -> None:
    """Its logits are wanted, even where every block of the prompt is cached."""
    books = scheduler(prefix_cache=True)
    start(books, request("a", 96))
    books.add(request("b", 96))
    assert step(books).chunk == 16


@pytest.mark.parametrize("moment", ["waiting", "reading", "decoding", "gone"])
def test_a_request_is_removed_wherever_it_is(moment: str) -> None:
    books = scheduler(chunk_tokens=16)
    start(books, request("a", 10))
    victim = request("b", 40)
    books.add(victim)
    while moment == "reading" and victim.computed != 16:
        step(books)
    while moment in ("decoding", "gone") and not victim.decoding:
        step(books)
    for _ in range(2 if moment == "gone" else 1):
        books.remove(victim)
    assert victim.slot is None
    assert not books.waiting
    assert names(step(books)) == (["a"], None, 0)


jobs = st.lists(
    st.tuples(st.integers(1, 200), st.integers(1, 150), st.integers(0, 30), st.none() | st.integers(0, 60)),
    min_size=1,
    max_size=8,
)


@given(jobs, st.sampled_from([6, 8, 40]), st.booleans())
def test_every_request_comes_to_its_end(jobs, granules: int, prefix_cache: bool) -> None:
    """Whatever joins, leaves and is preempted: the budget holds, first come is first served, and all are served."""
    books = scheduler(granules, prefix_cache=prefix_cache)
    sequences = [request(str(i), tokens, first=i % 2) for i, (tokens, *_) in enumerate(jobs)]
    live, clock = {}, 0
    while live or clock <= 30:
        for sequence, (_, _, joins, _) in zip(sequences, jobs, strict=True):
            if joins == clock:
                books.add(sequence)
                live[sequence.request_id] = sequence
        plan = step(books)
        assert bool(plan) == bool(live)
        for sequence in list(live.values()):
            _, answer, _, cancelled = jobs[int(sequence.request_id)]
            if len(sequence.output) >= answer or (cancelled is not None and clock >= cancelled):
                books.remove(sequence)
                del live[sequence.request_id]
        books.check_integrity()
        clock += 1
        assert clock < 5000
    assert not books.running
    assert not books.waiting


def test_the_integrity_check_sees_wrong_books() -> None:
    def damaged(harm) -> Scheduler:
        books = scheduler()
        start(books, request("a", 10), request("b", 10))
        books.check_integrity()
        harm(books)
        return books

    def swap(books: Scheduler) -> None:
        books._decoding.reverse()

    for harm, words in (
        (lambda books: books._arena.grow(3, 1), "have memory"),
        (lambda books: books._arena.release(0), "have memory"),
        (swap, "believes to be"),
        (lambda books: books._arena.grow(0, 1 << 20), "of a budget"),
    ):
        with pytest.raises(RuntimeError, match=words):
            damaged(harm).check_integrity()
