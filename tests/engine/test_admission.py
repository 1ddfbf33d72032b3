"""Who may wait: limits of the queue, when to come back, and deadlines that cannot be kept."""

from __future__ import annotations

import pytest

from edgeai.engine.admission import LONGEST_RETRY, Admission
from edgeai.engine.governor import Limits
from edgeai.engine.request import FinishReason
from edgeai.engine.scheduler import Scheduler
from edgeai.engine.terms import Priority
from edgeai.errors import DeadlineExceeded, Overloaded, TooManyRequests
from tests.engine.scheduling import request, scheduler, start, step

NOW = 1000.0


def admission(books: Scheduler) -> Admission:
    return Admission(books, clock=lambda: NOW)


def come(books: Scheduler, gate: Admission, count: int, client: str = "", **terms) -> int:
    """How many of so many requests may wait."""
    for number in range(count):
        sequence = request(f"{client}{number}", 10, client=client, **terms)
        try:
            gate.check(sequence)
        except Overloaded:
            return number
        books.add(sequence)
    return count


@pytest.mark.parametrize(("queue", "busy", "fit"), [(3, 0, 7), (3, 1, 6), (3, 4, 3), (0, 0, 4), (0, 4, 0)])
def test_those_whom_rows_are_free_for_do_not_count(queue: int, busy: int, fit: int) -> None:
    books = scheduler(max_queue=queue)
    start(books, *(request(f"busy{i}", 10) for i in range(busy)))
    assert come(books, admission(books), 20) == fit


def test_fewer_rows_while_memory_or_power_is_scarce() -> None:
    books = scheduler(max_queue=3)
    books.restrain(Limits(rows=1, chunk=8, prompt=100, kv_bytes=0, alone_bytes=0, cache_bytes=0))
    assert come(books, admission(books), 20) == 4
    books = scheduler(max_queue=3)
    books.allowed_rows = 1
    assert come(books, admission(books), 20) == 4


def test_one_client_has_half_of_the_queue() -> None:
    books = scheduler(max_queue=8)
    start(books, *(request(f"busy{i}", 10) for i in range(4)))
    gate = admission(books)
    assert come(books, gate, 20, "x") == 4
    with pytest.raises(TooManyRequests, match="4 of your requests are waiting") as caught:
        gate.check(request("more", 10, client="x"))
    assert caught.value.status == 429
    assert come(books, gate, 20, "y") == 4
    with pytest.raises(Overloaded, match="8 requests are waiting") as refused:
        gate.check(request("more", 10, client="z"))
    assert refused.value.status == 503


def test_a_limit_for_each_client() -> None:
    books = scheduler(max_queue=8, max_queue_per_client=1)
    start(books, *(request(f"busy{i}", 10) for i in range(4)))
    assert [come(books, admission(books), 20, client) for client in "xyz"] == [1, 1, 1]
    assert come(books, admission(books), 20) == 5  # whom nobody can tell apart are no client


def test_batch_leaves_places_for_interactive_requests() -> None:
    books = scheduler(max_queue=8)
    start(books, *(request(f"busy{i}", 10) for i in range(4)))
    gate = admission(books)
    assert come(books, gate, 20, priority=Priority.BATCH) == 6
    assert come(books, gate, 20) == 2


def test_when_to_come_back_follows_what_answers_took() -> None:
    """Four rows that take 20 seconds each: one is free every five."""
    books = scheduler(max_queue=0)
    gate = admission(books)
    start(books, *(request(f"busy{i}", 10) for i in range(4)))

    def retry() -> int:
        with pytest.raises(Overloaded) as caught:
            gate.check(request("more", 10))
        return caught.value.retry_after

    assert retry() == 1
    for sequence in books.running:
        sequence.admitted = NOW - 20
        gate.finished(sequence, FinishReason.STOP)
    assert retry() == 5
    books.running[0].admitted = 0.0 + 1e-9
    for _ in range(100):
        books.running[0].admitted = NOW - 1e6
        gate.finished(books.running[0], FinishReason.STOP)
    assert retry() == LONGEST_RETRY


def test_a_deadline_that_cannot_be_kept_is_refused_at_once() -> None:
    """200 tokens at 100 tokens a second."""
    books = scheduler(prefix_cache=True)
    for start_of_chunk in range(0, 512, 64):
        books.chunks.measured(128, start_of_chunk, 1.28)
    gate = admission(books)
    gate.check(request("a", 200, deadline=NOW + 2.3))
    with pytest.raises(DeadlineExceeded, match=r"1\.5 seconds are left") as caught:
        gate.check(request("b", 200, deadline=NOW + 1.5))
    assert caught.value.status == 504
    cached = request("c", 200)
    start(books, cached)
    gate.check(request("d", 200, deadline=NOW + 0.5))  # its blocks are in the cache
    assert gate.expired == 1


def test_before_anything_was_measured_every_deadline_is_tried() -> None:
    gate = admission(scheduler())
    gate.check(request("a", 200, deadline=NOW + 0.001))
    with pytest.raises(DeadlineExceeded, match="passed"):
        gate.check(request("a", 200, deadline=NOW - 0.001))


def test_an_answer_that_was_begun_is_not_lost_to_its_deadline() -> None:
    """A preempted sequence has text that was sent: it ends with its next token, not with an error."""
    books = scheduler()
    times = [NOW]
    gate = Admission(books, clock=lambda: times[0])
    begun = request("a", 10, deadline=NOW + 5)
    gate.check(begun)
    start(books, begun)
    step(books)
    books._preempt(begun)
    assert list(books.waiting) == [begun]
    times[0] = NOW + 10
    assert not gate.overdue()
    assert gate.must_end(begun)
