"""A real engine behind the real server when too much is asked: who is refused, how, and what /metrics tells of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from edgeai.engine.config import EngineSettings
from edgeai.model import AsyncModel
from tests.fixtures import patience
from tests.server.float_model import float_package
from tests.server.serving import Served, serving

STEP_SECONDS = 0.02  # of an engine that is made slow, so that its only row stays taken


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    settings = EngineSettings(
        threads=1, max_rows=1, max_queue=4, max_queue_per_client=1, kv_budget_bytes=1 << 24, draft_tokens=0
    )
    with serving(AsyncModel.load(float_package(tmp_path), settings)) as running:
        decode = running.model._engine.runner.decode

        def slowly(*arguments: Any) -> Any:
            time.sleep(STEP_SECONDS)
            return decode(*arguments)

        running.model._engine.runner.decode = slowly
        yield running


def ask(served: Served, key: str, **body: Any) -> httpx.Response:
    """An answer without end, unless it is told when to."""
    unending = {"prompt": "Hello", "logit_bias": {str(token): -100 for token in served.model.manifest.tokens.eos}}
    headers = {"authorization": f"Bearer {key}"}
    return patience.post(f"{served.url}/v1/completions", json={**unending, **body}, headers=headers)


def metric(served: Served, name: str) -> dict[str, float]:
    """Values by the value of their last label."""
    lines = patience.get(f"{served.url}/metrics").text.splitlines()
    found = (line.rsplit(" ", 1) for line in lines if line.startswith(f"{name}{{"))
    return {labels.rsplit('="', 1)[1].rstrip('"}'): float(value) for labels, value in found}


@pytest.fixture
def later(served: Served) -> Iterator[Callable[..., threading.Thread]]:
    """Asks in a thread; all have to end."""
    with ExitStack() as stack:

        def asking(key: str, **body: Any) -> threading.Thread:
            thread = threading.Thread(target=ask, args=(served, key), kwargs=body)
            thread.start()
            stack.callback(thread.join)
            return thread

        yield asking


def test_each_limit_has_its_status_and_the_queue_is_shown_by_class(served: Served, later) -> None:
    later("holder", max_tokens=150)
    assert patience.eventually(lambda: served.model.engine.stats().running == 1)
    for key, tier in (("a", "flex"), ("b", "default"), ("c", "default")):
        later(key, max_tokens=1, service_tier=tier)
    assert patience.eventually(lambda: served.model.engine.stats().waiting == 3)
    assert metric(served, "edgeai_num_requests_queued") == {"interactive": 2, "batch": 1}
    own = ask(served, "a")
    assert (own.status_code, own.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    batch = ask(served, "d", service_tier="flex")  # a quarter of the queue is not for batch
    assert (batch.status_code, batch.json()["error"]["code"]) == (503, "overloaded")
    later("d", max_tokens=1)
    assert patience.eventually(lambda: served.model.engine.stats().waiting == 4)
    everybody = ask(served, "e")
    assert everybody.status_code == 503
    for refused in (own, batch, everybody):
        assert int(refused.headers["retry-after"]) >= 1


def test_deadlines_end_what_waits_and_what_is_written(served: Served, later) -> None:
    holder = later("holder", max_tokens=100)
    assert patience.eventually(lambda: served.model.engine.stats().running == 1)
    late = ask(served, "a", timeout=0.2)
    assert (late.status_code, late.json()["error"]["code"]) == (504, "deadline_exceeded")
    assert late.headers["x-should-retry"] == "false"
    holder.join()
    cut = ask(served, "a", timeout=0.5).json()["choices"][0]
    assert cut["finish_reason"] == "length"
    assert cut["text"]
    assert metric(served, "edgeai_num_requests_expired_total") == {"tiny": 2}
