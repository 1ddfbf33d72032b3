"""The load test's own arithmetic, and its scenarios against a real server."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from edgeai.package.package import Package

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture(autouse=True)
def _scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))


def test_quantiles_are_values_that_were_measured() -> None:
    from load_scenarios import quantiles

    values = [float(number) for number in range(1, 101)][::-1]
    assert quantiles(values, "wait", 0.5, 0.95, 0.99) == {"wait_p50": 51, "wait_p95": 96, "wait_p99": 100}
    assert quantiles([3.0], "wait", 0.5, 0.95) == {"wait_p50": 3, "wait_p95": 3}
    assert quantiles([1.0, math.inf], "wait", 0.95) == {"wait_p95": math.inf}
    with pytest.raises(ValueError, match="nothing was measured for wait"):
        quantiles([], "wait", 0.5)


def test_arrivals_follow_from_the_seed_and_come_at_the_rate() -> None:
    from load_traffic import arrivals

    moments = arrivals(1, rate=2.0, seconds=1000.0)
    assert moments == arrivals(1, rate=2.0, seconds=1000.0) != arrivals(2, rate=2.0, seconds=1000.0)
    assert moments == sorted(moments)
    assert 0 < moments[0] < moments[-1] < 1000
    assert 1800 < len(moments) < 2200  # 2000 by the law, with a deviation of 45


def test_no_two_texts_begin_alike() -> None:
    from load_traffic import Texts

    texts, again = Texts(1), Texts(1)
    written = [texts(20) for _ in range(200)]
    assert written == [again(20) for _ in range(200)]
    assert len({text[:6] for text in written}) > 190


def test_gaps_are_those_that_reach_into_the_time() -> None:
    from load_traffic import gaps, pieces
    from server_client import Reply

    replies = [Reply(0.0, ["a"] * 4, [1.0, 2.0, 5.0, 5.5]), Reply(0.0, ["a"] * 2, [6.0, 9.0]), Reply(0.0)]
    assert list(gaps(replies, 3.0, 5.2)) == [3.0, 0.5]
    assert list(gaps(replies, 2.0, 5.0)) == [3.0]
    assert pieces(replies, 2.0, 6.0) == 3


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """A server that answers everything alike."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (503, b'{"error": {"message": "full"}}', "answered 503"),
        (200, b'data: {"error": {"message": "no memory"}}\n\n', "told of an error"),
        (200, b'data: {"choices": [{"delta": {"content": "Hi"}}]}\n\n', "ended early"),
        (200, b'data: {"choices": [{"del', "ended early"),
    ],
)
def test_what_fails_is_counted_and_waits_for_ever(status: int, body: bytes, told: str) -> None:
    from load_scenarios import outcome, waits
    from load_traffic import Traffic

    with answering(status, body) as base_url, Traffic(base_url, 1) as traffic:
        assert traffic.ask("one", words=3, max_tokens=4) is None
    assert waits(traffic, "one", "wait") == {"wait_p50": math.inf, "wait_p95": math.inf}
    found = outcome(traffic, {})
    assert found.requests == 1
    assert [text.startswith("one: RuntimeError") and told in text for text in found.failures] == [True]


def test_an_answer_from_a_cache_is_no_figure() -> None:
    from load_scenarios import outcome
    from load_traffic import Traffic

    usage = {"prompt_tokens": 900, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 800}}
    event = json.dumps({"choices": [{"delta": {"content": "Hi"}}], "usage": usage})
    with answering(200, f"data: {event}\n\ndata: [DONE]\n\n".encode()) as base_url, Traffic(base_url, 1) as traffic:
        assert traffic.ask("one", words=3, max_tokens=4) is not None
    with pytest.raises(SystemExit, match="1 of 1 prompts came from a cache"):
        outcome(traffic, {})


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["long", "fair", "batch"])
def test_a_scenario_measures_a_real_server(smollm_package: Package, scenario: str) -> None:
    from load_scenarios import SCENARIOS, Plan
    from servers import edgeai_server

    small = {
        "chatters": 2,
        "long_words": 960,
        "flood": 4,
        "seconds": 2,
        "lead": 0.5,
        "pause": 0.1,
        "rate": 2,
        "context": 1024,
    }
    plan = dataclasses.replace(Plan(), **small)
    with edgeai_server(smollm_package.path, context=plan.context) as server:
        found = SCENARIOS[scenario](server.base_url, plan, 5)
    assert found.failures == []
    assert found.requests > 2
    assert all(0 < value < math.inf for value in found.figures.values())


def test_rounds_are_kept_and_compared(tmp_path: Path) -> None:
    from bench_load import CONTESTANTS, Rounds, said
    from bench_rows import markdown
    from load_scenarios import Outcome

    def outcome(wait: float, *failures: str) -> Outcome:
        return Outcome({"fair_wait_p50": wait, "fair_wait_p95": math.inf}, 10, list(failures))

    Rounds(tmp_path / "state").add("fair", 0, {"ours": outcome(1), "same": outcome(8, "full"), "best": outcome(4)})
    rounds = Rounds(tmp_path / "state")
    assert ("fair", 0) in rounds
    assert ("fair", 1) not in rounds
    row, failed = rounds.rows()
    assert (row.ours, row.same, row.best, row.ratio_same, row.ratio_best) == (1, 8, 4, 8, 4)
    assert failed.ours == math.inf
    assert "| 1 | 8 | 8.00x | 4 | 4.00x |" in markdown([row], {"fair_wait_p50": "wait"}, CONTESTANTS)
    told = said(rounds.failures())
    assert "llama-server: 1 of 10 requests failed.\n  1 times full" in told
    assert "edgeai: 0 of 10 requests failed." in told
