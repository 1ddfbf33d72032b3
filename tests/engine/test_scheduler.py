"""What the next step computes, and who has to make room for it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeai.engine import prefix_reuse
from edgeai.engine.chunking import MIN_CHUNK
from edgeai.engine.kv_cache import GRANULE, KVArena
from edgeai.engine.scheduler import Scheduler
from edgeai.engine.terms import Priority
from tests.engine.scheduling import SHAPE, names, request, scheduler, start, step


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
    books.chunks.measured(100, 0, 100.0)
    books.add(request("a", 300))
    assert [step(books).chunk for _ in range(3)] == [128, 128, 44]


def test_chunks_fit_into_what_a_step_has_left_while_others_decode() -> None:
    books = scheduler(latency_seconds=0.25)
    start(books, request("a", 10))
    for position in range(0, 512, 16):
        for tokens in (16, 64, 128):
            books.chunks.measured(tokens, position, tokens / 1000)
    books.add(request("b", 300))
    plan = books.schedule()
    assert [books.fit(plan, spent).chunk for spent in (0.0, 0.137, 0.19, 0.3)] == [128, 80, 32, 16]
    assert books.fit(plan, 0.3).decode == plan.decode


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


def test_batch_gives_way_before_the_youngest() -> None:
    books = scheduler(granules=5)
    sequences = [request("a", 40, priority=Priority.BATCH), request("b", 40), request("c", 40)]
    start(books, *sequences)
    while not books.preemptions:
        step(books)
    assert [s.request_id for s in books.waiting] == ["a"]


def test_an_interactive_request_takes_the_row_of_the_youngest_batch_one() -> None:
    books = scheduler()
    start(books, *(request(str(i), 10, priority=Priority.BATCH) for i in range(4)))
    books.add(request("batch", 10, priority=Priority.BATCH))
    assert names(step(books)) == (["0", "1", "2", "3"], None, 0)
    books.add(request("urgent", 10))
    assert names(step(books)) == (["0", "1", "2"], "urgent", 10)
    assert [s.request_id for s in books.waiting] == ["3", "batch"]
    books.add(request("another", 10))
    step(books)
    assert [s.request_id for s in books.running] == ["0", "1", "urgent", "another"]
    assert not any(s.computed for s in books.waiting)


def test_a_client_without_a_row_is_given_one_of_who_has_most() -> None:
    books = scheduler()
    start(books, *(request(name, 10, client=name[0]) for name in ("x1", "x2", "x3", "y1")))
    books.add(request("z1", 10, client="z"))
    step(books)
    assert {each.request_id for each in books.running} == {"x1", "x2", "y1", "z1"}
    assert [each.request_id for each in books.waiting] == ["x3"]
    books.add(request("z2", 10, client="z"))
    books.add(request("w1", 10, client="w"))
    while not any(each.request_id == "w1" and each.decoding for each in books.running):
        step(books)
    assert {each.request_id for each in books.running} == {"x1", "z1", "y1", "w1"}
    books.add(request("v1", 10, client="v"))
    assert names(step(books))[1:] == (None, 0)  # nobody has several any more


def test_interactive_rows_are_nobodys() -> None:
    books = scheduler()
    start(books, *(request(str(i), 10) for i in range(4)))
    books.add(request("urgent", 10))
    books.add(request("batch", 10, priority=Priority.BATCH))
    assert names(step(books)) == (["0", "1", "2", "3"], None, 0)


def test_a_long_prompt_is_overtaken_by_clients_who_were_served_less() -> None:
    """It waits in its row, and both have their turns until the short prompt has been read."""
    books = scheduler(chunk_tokens=32)
    long = request("long", 400, client="x")
    books.add(long)
    assert names(step(books)) == ([], "long", 32)
    books.add(request("short", 50, client="y"))
    books.add(request("own", 10, client="x"))
    turns = [names(step(books))[1] for _ in range(5)]
    assert turns == ["long", "short", "long", "short", "long"]
    assert not long.preempted
    assert [each.request_id for each in books.running] == ["short", "long"]
    assert [each.request_id for each in books.waiting] == ["own"]
    while not long.decoding:
        assert names(step(books))[1] == "long"


def test_rows_change_places_where_one_overtakes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The long prompt's row is the first; the short one, read sooner, needs it to decode."""
    books = scheduler(chunk_tokens=32)
    swaps = []
    monkeypatch.setattr(books._arena, "swap", lambda *slots: swaps.append(slots))
    long, short = request("long", 400, client="x"), request("short", 20, client="y")
    books.add(long)
    step(books)
    books.add(short)
    while not short.decoding:
        step(books)
    assert swaps == [(1, 0)]
    assert (short.slot, long.slot) == (0, 1)


def test_only_those_who_are_read_at_once_are_given_rows() -> None:
    books = scheduler(chunk_tokens=32)
    for name in "abcdefgh":
        books.add(request(name, 200, client="x"))
    step(books)
    step(books)
    assert [each.request_id for each in books.running] == ["a"]


def test_a_batch_prompt_that_is_being_read_is_overtaken() -> None:
    books = scheduler(chunk_tokens=32)
    long = request("long", 200, priority=Priority.BATCH)
    books.add(long)
    assert names(step(books)) == ([], "long", 32)
    books.add(request("urgent", 10, first=1000))
    assert names(step(books)) == ([], "urgent", 10)
    plan = step(books)
    assert names(plan) == (["urgent"], "long", 16)
    assert long.computed == 48


@pytest.mark.parametrize("runs", [False, True])
def test_what_batch_is_owed_is_forgotten_with_the_last_of_it(runs: bool) -> None:
    books, urgent = scheduler(), request("u", 10)
    batch = [request(name, 10, priority=Priority.BATCH) for name in "bcd"]
    books.add(batch[0])
    if runs:
        step(books)
        books.waiting.add(batch[2])  # so that anything is owed
    books.waiting.charge(urgent, read=10_000)
    books.add(batch[1])
    books.add(urgent)
    assert [each.request_id for each in books.waiting][-1] == "u"  # it is batch's turn
    for sequence in batch:
        books.remove(sequence)
    books.remove(urgent)
    late = [request("x", 10, priority=Priority.BATCH), request("y", 10)]
    for sequence in late:
        books.add(sequence)
    assert [each.request_id for each in books.waiting] == ["y", "x"]


def test_memory_of_batch_rows_is_taken_only_where_it_is_enough() -> None:
    books = scheduler(granules=7)
    start(books, request("a", 100), request("b", 40, priority=Priority.BATCH))
    books.add(request("large", 300))
    assert names(step(books)) == (["a", "b"], None, 0)
    books.remove(next(iter(books.waiting)))
    books.add(request("fits", 150))
    assert names(step(books)) == (["a"], "fits", 16)


def test_a_long_cached_prompt_comes_into_its_row_bit_by_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """While others decode; they do not wait for it."""
    monkeypatch.setattr(prefix_reuse, "SLICE_BYTES", 2 * 16 * SHAPE.token_bytes)
    books = scheduler(prefix_cache=True)
    first = request("a", 100)
    start(books, first)
    books.remove(first)
    start(books, request("other", 10, first=500))
    again = request("b", 100)
    books.add(again)
    seen = [(names(step(books))[1:], again.computed) for _ in range(3)]
    assert seen == [((None, 0), 32), ((None, 0), 64), (("b", 4), 100)]
    assert again.cached_tokens == 96


def test_blocks_that_leave_the_cache_meanwhile_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefix_reuse, "SLICE_BYTES", 16 * SHAPE.token_bytes)
    books = scheduler(prefix_cache=True)
    first = request("a", 100)
    start(books, first)
    books.remove(first)
    start(books, request("other", 10, first=500))
    again = request("b", 100)
    books.add(again)
    step(books)
    books._reuse._cache.clear()
    assert names(step(books))[1:] == ("b", 16)
    assert (again.computed, again.cached_tokens) == (32, 16)


def test_a_prompt_is_remembered_while_it_is_read() -> None:
    books = scheduler(chunk_tokens=32, prefix_cache=True)
    books.add(request("a", 200))
    for count in (2, 4, 6):
        step(books)
        assert books._reuse._cache.used_bytes == count * 16 * SHAPE.token_bytes


jobs = st.lists(
    st.tuples(
        st.integers(1, 200),
        st.integers(1, 150),
        st.integers(0, 30),
        st.none() | st.integers(0, 60),
        st.sampled_from("xyz"),
        st.sampled_from(Priority),
    ),
    min_size=1,
    max_size=8,
)


@given(jobs, st.sampled_from([6, 8, 40]), st.booleans())
def test_every_request_comes_to_its_end(jobs, granules: int, prefix_cache: bool) -> None:
    """Whatever joins, leaves and is preempted: the budget holds, and all are served."""
    books = scheduler(granules, prefix_cache=prefix_cache)
    sequences = [
        request(str(i), tokens, first=i % 2, client=client, priority=priority)
        for i, (tokens, *_, client, priority) in enumerate(jobs)
    ]
    live, clock = {}, 0
    while live or clock <= 30:
        for sequence, (_, _, joins, *_) in zip(sequences, jobs, strict=True):
            if joins == clock:
                books.add(sequence)
                live[sequence.request_id] = sequence
        plan = step(books)
        assert bool(plan) == bool(live)
        for sequence in list(live.values()):
            _, answer, _, cancelled, *_ = jobs[int(sequence.request_id)]
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
