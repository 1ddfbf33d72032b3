"""The soak's own judgement, and a short one of a real server."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgeai.package.package import Package
from tests.fixtures.patience import PATIENCE

if TYPE_CHECKING:
    from scripts.soak_clients import Answer
    from scripts.soak_watch import Sample

SCRIPTS = Path(__file__).parents[1] / "scripts"
EVENT = b'data: {"choices": [{"delta": {"content": "Hi"}}]}\n\n'
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"


@pytest.fixture(autouse=True)
def _scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))


def samples(rss: Callable[[int], float], count: int = 100) -> list[Sample]:
    from soak_watch import Sample

    return [Sample(float(n), 1, rss_mib=rss(n), descriptors=20 + n % 3, threads=8) for n in range(count)]


def test_a_leak_is_told_from_peaks() -> None:
    from soak_watch import growth

    steady = growth(samples(lambda n: 900.0 if n % 10 == 9 else 400.0))
    assert [each.good for each in steady] == [True, True, True]
    assert [each.judged for each in steady] == [True, True, True]
    leak, *others = growth(samples(lambda n: 400.0 + n))
    assert (leak.name, leak.good, round(leak.grown)) == ("own_mib", False, 99)
    assert all(each.good for each in others)


def test_a_cache_that_fills_is_no_leak() -> None:
    from soak_watch import growth

    filling = [replace(sample, kv_mib=n) for n, sample in enumerate(samples(lambda n: 400.0 + n))]
    memory, *_ = growth(filling)
    assert (memory.good, memory.grown) == (True, 0.0)


def test_a_short_time_is_not_judged() -> None:
    from soak_watch import growth

    leak, *_ = growth(samples(lambda n: 400.0 + 10 * n, count=20))
    assert (leak.judged, leak.good) == (False, True)
    assert growth(samples(lambda n: 400.0, count=2)) == []


def test_a_process_is_looked_at() -> None:
    from soak_watch import look

    before = look(os.getpid())
    with Path(__file__).open() as _, Path(__file__).open() as _:
        after = look(before.pid)
    assert after.descriptors >= before.descriptors + 1
    assert after.rss_mib > 10
    assert after.threads >= 1


def test_the_same_seed_asks_the_same() -> None:
    from soak_asks import COMMON, MIX, draw

    def asked(seed: int) -> list[str]:
        chance = random.Random(seed)
        return [repr((ask.kind, ask.body, ask.pieces, ask.pause)) for ask in (draw(chance, MIX) for _ in range(300))]

    assert asked(1) == asked(1) != asked(2)
    kinds = Counter(draw(random.Random(seed), MIX).kind for seed in range(2000))
    assert set(kinds) == {ask(random.Random(0)).kind for ask in MIX}
    assert set(COMMON) < set(MIX)


def asked(answer: bytes, kind: str, *, down: bool = False) -> Answer:
    """What a client of that kind makes of a server that answers so, and closes."""
    import soak_asks
    from soak_clients import Clients, Target

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split()[0]))
        writer.write(answer)
        await writer.drain()
        writer.close()

    async def one() -> Answer:
        async with await asyncio.start_server(speak, "127.0.0.1", 0) as server:
            target = Target(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
            target.down = [(0.0, float("inf"))] if down else []
            async with Clients(target, {getattr(soak_asks, kind): 1}, count=1, seed=1, pause=0.01) as clients:
                while not clients.answers:
                    await asyncio.sleep(0.01)
            return clients.answers[0]

    return asyncio.run(one())


def plain(status: int, document: object) -> bytes:
    body = json.dumps(document).encode()
    return b"HTTP/1.1 %d X\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body)


MESSAGE = {"choices": [{"finish_reason": "stop", "message": {"content": '{"place": "well", "safe": true}'}}]}
WRONG_MESSAGE = {"choices": [{"finish_reason": "stop", "message": {"content": "a well"}}]}


@pytest.mark.parametrize(
    ("answer", "kind", "outcome", "good"),
    [
        (STREAM_HEAD + EVENT * 3 + b"data: [DONE]\n\n", "short", "200", True),
        (STREAM_HEAD + EVENT * 9 + b"data: [DONE]\n\n", "cut", "hung up", True),
        (STREAM_HEAD + EVENT, "short", "broken", False),
        (STREAM_HEAD + b'data: {"error": {"code": "internal_error"}}\n\n', "short", "broken", False),
        (STREAM_HEAD + b"data: {\n\n", "short", "broken", False),
        (b"", "short", "connection cut", False),
        (plain(503, {}), "short", "503", True),
        (plain(429, {}), "short", "429", True),
        (plain(500, {}), "short", "500", False),
        (plain(500, {}), "malformed", "500", False),
        (plain(200, MESSAGE), "malformed", "200", False),
        (plain(200, MESSAGE), "wrong_key", "200", False),
        (plain(401, {}), "wrong_key", "401", True),
        (plain(404, {}), "unknown_model", "404", True),
        (plain(200, MESSAGE), "schema", "200", True),
        (plain(200, WRONG_MESSAGE), "schema", "broken", False),
        (plain(507, {}), "upload", "507", True),
        (plain(507, {}), "short", "507", False),
    ],
)
def test_answers_are_judged(answer: bytes, kind: str, outcome: str, good: bool) -> None:
    found = asked(answer, kind)
    assert (found.outcome, found.good) == (outcome, good), found.said
    assert found.ended > found.sent


@pytest.mark.parametrize("answer", [b"", STREAM_HEAD + EVENT])
def test_a_killed_server_need_not_answer(answer: bytes) -> None:
    found = asked(answer, "short", down=True)
    assert (found.outcome, found.good) == ("server gone", True)


def test_what_is_wrong_is_told_once() -> None:
    from soak_clients import Answer
    from soak_report import Findings, latencies, outcomes, report, wrong
    from soak_watch import growth

    bad = [Answer("short", 0.0, 1.0, "500", good=False, said=f"crash {n}") for n in range(3)]
    fine = Answer("short", 10.0, 13.0, "200", times=[11.0, 11.5, 12.5])
    assert wrong([*bad, fine]) == ["short: 3 times 500: crash 0"]
    assert outcomes([*bad, fine]) == {"short": Counter({"500": 3, "200": 1})}
    assert latencies([*bad, fine]) == {"short, first token": (1.0, 1.0, 1), "short, between tokens": (1.0, 1.0, 2)}
    found = Findings(30.0, outcomes([*bad, fine]), latencies([fine]), growth(samples(lambda n: 400.0 + n)), [], ["bad"])
    assert json.loads(json.dumps(found.document()))["outcomes"] == {"short": {"500": 3, "200": 1}}
    assert "| short | 4 | 1 | 3 |" in report(found)
    assert "| own_mib | 449.5 | +99.0 | 22.5 |" in report(found)
    assert report(found).endswith("PROBLEM: bad")


def test_refusals_are_told_by_reason_and_whose_they_were() -> None:
    from soak_clients import Answer
    from soak_report import refusals

    def refused(status: str, message: str) -> Answer:
        return Answer("short", 0.0, outcome=status, said=json.dumps({"error": {"message": message}}))

    answers = [refused("503", "12 of 60 wait"), refused("503", "13 of 60 wait"), refused("429", 'a "b"')]
    log = "INFO batch_1 waits: 9 of yours wait\nINFO batch_1 waits: 10 of yours wait\nINFO batch_1 ends\n"
    assert refusals([*answers, Answer("short", 0.0)], log) == [
        'told to come again, 1 times: clients, 429: a \\"b\\"',
        "told to come again, 2 times: clients, 503: N of N wait",
        "told to come again, 2 times: the batch: N of yours wait",
    ]
    assert refusals([], "") == []


def test_a_ratio_above_1_is_better() -> None:
    from soak_report import peer_table

    found = {"edgeai": {"short, first token": (0.5, 1.0, 10)}, "llama-server": {"short, first token": (1.0, 3.0, 5)}}
    assert "| short, first token | 10 / 5 | 0.500 | 1.000 | 2.00x | 1.000 | 3.000 | 3.00x |" in peer_table(found)


def test_tracebacks_are_found_in_a_log() -> None:
    from soak import tracebacks

    head = "Traceback (most recent call last):\n  File x\n"
    assert tracebacks("all is well\n") == []
    crash = f"{head}    1 / 0\nZeroDivisionError: division by zero\n"
    assert len(tracebacks(f"started\n{crash}{crash}stopped\n")) == 2


@pytest.mark.slow
def test_a_short_soak_finds_nothing(smollm_package: Package, tmp_path: Path) -> None:
    command = [sys.executable, SCRIPTS / "soak.py", smollm_package.path, "--clients", "8", "--seconds", "15"]
    command += ["--batch", "12", "--json", tmp_path / "found.json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=4 * PATIENCE, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["problems"] == []
    assert found["outcomes"]["short"]["200"] > 0
    assert any(line.startswith("kill -9: answered again") for line in found["seen"])
