"""Whose turn it is: shares of clients, classes, and what nobody can save up."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeai.engine.fair_share import MOST_COUNTERS, FairShare
from edgeai.engine.sequence import Sequence
from edgeai.engine.terms import Priority
from edgeai.engine.waiting import BATCH_SHARE, OUTPUT_WEIGHT, PATIENCE, WaitingQueue
from tests.engine.scheduling import request

INTERACTIVE, BATCH = Priority


def filled(*entries: tuple[str, str], priority: Priority = INTERACTIVE) -> WaitingQueue:
    waiting = WaitingQueue()
    for name, client in entries:
        waiting.add(request(name, 10, client=client, priority=priority))
    return waiting


def names(waiting: WaitingQueue) -> str:
    return "".join(sequence.request_id for sequence in waiting)


def take(waiting: WaitingQueue) -> Sequence:
    sequence = next(iter(waiting))
    waiting.remove(sequence)
    return sequence


def test_one_client_is_served_in_the_order_of_arrival() -> None:
    waiting = filled(("a", "x"), ("b", "x"), ("c", "x"))
    assert names(waiting) == "abc"
    first = take(waiting)
    assert names(waiting) == "bc"
    assert first not in waiting
    waiting.put_back(first)
    assert names(waiting) == "abc"
    assert (len(waiting), waiting.of_client("x"), waiting.of_client("y"), waiting.clients) == (3, 3, 0, 1)


def test_the_least_served_client_is_next() -> None:
    waiting = filled(("a", "x"), ("b", "x"), ("c", "y"))
    waiting.charge(take(waiting), read=100)
    assert names(waiting) == "cb"
    waiting.charge(take(waiting), written=100)
    waiting.add(request("d", 1, client="y"))
    assert names(waiting) == "bd"


def test_a_crowd_of_requests_does_not_keep_others_waiting() -> None:
    waiting = filled(*((str(i), "greedy") for i in range(9)), ("a", "modest"))
    waiting.charge(take(waiting), read=1)
    assert take(waiting).request_id == "a"


def test_nobody_saves_up_turns_by_being_away() -> None:
    """Y comes when x has been served for long: from now on they take turns, and x has not to wait for y to catch up."""
    waiting = filled(*((str(i), "x") for i in range(50)))
    for _ in range(20):
        waiting.charge(take(waiting), read=1000)
    for i in range(50):
        waiting.add(request(f"y{i}", 1, client="y"))
    served = []
    for _ in range(20):
        sequence = take(waiting)
        served.append(sequence.terms.client)
        waiting.charge(sequence, read=1000)
    assert 9 <= served.count("x") <= 11


def test_who_comes_to_an_empty_queue_owes_no_more_than_the_last() -> None:
    waiting = filled(("a", "x"))
    waiting.charge(take(waiting), read=5000)
    waiting.add(request("b", 1, client="new"))
    waiting.add(request("c", 1, client="x"))
    waiting.charge(take(waiting), read=1)
    assert names(waiting) == "c"
    waiting.add(request("d", 1, client="new"))
    assert names(waiting) == "cd"


sizes = st.tuples(st.integers(1, 60), st.integers(1, 30))


@given(st.lists(st.lists(sizes, min_size=40, max_size=40), min_size=2, max_size=5), st.integers(1, 6))
def test_backlogged_clients_are_served_alike(clients: list[list[tuple[int, int]]], rows: int) -> None:
    """The bound of the paper's theorem: what is under way for one client, prompts and answers, in weighted tokens."""
    waiting = WaitingQueue()
    answers: dict[str, int] = {}
    served = dict.fromkeys(range(len(clients)), 0)
    for turn in range(40):
        for client, jobs in enumerate(clients):
            name = f"{client}/{turn}"
            answers[name] = jobs[turn][1]
            waiting.add(request(name, jobs[turn][0], client=str(client)))
    bound = rows * (60 + OUTPUT_WEIGHT * 30)
    running: list[Sequence] = []
    while all(waiting.of_client(str(client)) for client in served):
        if len(running) < rows:
            sequence = take(waiting)
            waiting.charge(sequence, read=sequence.prompt_tokens)
            served[int(sequence.terms.client)] += sequence.prompt_tokens
            running.append(sequence)
        for sequence in list(running):
            waiting.charge(sequence, written=1)
            served[int(sequence.terms.client)] += OUTPUT_WEIGHT
            answers[sequence.request_id] -= 1
            if not answers[sequence.request_id]:
                running.remove(sequence)
        assert max(served.values()) - min(served.values()) <= bound


def test_interactive_requests_go_first() -> None:
    waiting = filled(("a", "x"), ("b", "y"), priority=BATCH)
    waiting.add(request("c", 1, client="z"))
    assert names(waiting) == "cab"
    assert waiting.lengths() == {INTERACTIVE: 1, BATCH: 2}


def test_batch_has_its_share_of_a_constant_load() -> None:
    waiting = WaitingQueue()
    numbers = itertools.count()
    served = dict.fromkeys(Priority, 0)
    for _ in range(2000):
        for priority in Priority:
            if not waiting.lengths()[priority]:
                waiting.add(request(str(next(numbers)), 100, client=str(priority), priority=priority))
        sequence = take(waiting)
        waiting.charge(sequence, read=100)
        served[sequence.terms.priority] += 100
    assert served[BATCH] / served[INTERACTIVE] == pytest.approx(BATCH_SHARE, rel=0.2)


def test_batch_waits_until_it_is_far_behind_and_then_catches_up() -> None:
    waiting = filled(*((str(i), "x") for i in range(9)), priority=BATCH)
    urgent = request("u", 1, client="z")
    waiting.add(urgent)
    waiting.charge(urgent, read=int(PATIENCE / BATCH_SHARE))
    assert names(waiting)[0] == "u"
    waiting.charge(urgent, read=1)
    batch = take(waiting)
    assert batch.request_id == "0"
    assert not waiting.may_displace(urgent, batch)
    waiting.charge(batch, read=PATIENCE)
    assert names(waiting)[0] == "1"  # an eighth of a token is left
    waiting.charge(batch, read=1)
    assert names(waiting)[0] == "u"
    assert waiting.may_displace(urgent, batch)
    assert not waiting.may_displace(batch, urgent)
    assert not waiting.may_displace(urgent, urgent)


def test_batch_that_just_came_has_no_claim() -> None:
    waiting = WaitingQueue()
    for i in range(100):
        waiting.add(request(str(i), 1))
        waiting.charge(take(waiting), read=10_000)
    waiting.add(request("b", 1, priority=BATCH))
    waiting.add(request("u", 1))
    assert names(waiting) == "ub"


def test_batch_is_never_owed_much() -> None:
    waiting = filled(("b", "x"), priority=BATCH)
    urgent = request("u", 1)
    waiting.add(urgent)
    waiting.charge(urgent, read=10_000_000)
    assert names(waiting) == "bu"
    waiting.charge(take(waiting), read=2 * PATIENCE)
    waiting.add(request("c", 1, priority=BATCH))
    assert names(waiting) == "uc"


def test_counters_are_not_kept_for_ever() -> None:
    share = FairShare[int]()
    for number in range(3 * MOST_COUNTERS):
        share.join(number, ())
        share.charge(number, 1)
        share.leave(number)
    assert len(share._served) <= MOST_COUNTERS + 1
