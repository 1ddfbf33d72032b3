"""Children that are kept, one for each setting being compared, as many at once as memory allows."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict
from types import TracebackType
from typing import Any, Self

from edgeai.device.profile import read_memory
from edgeai.engine.config import EngineSettings
from edgeai.errors import TrialFailed
from edgeai.package.package import Package
from edgeai.tuning.child import WORKER, Child, load_timeout
from edgeai.tuning.golden import Answer
from edgeai.tuning.knobs import Workload
from edgeai.tuning.profile import Figures, Golden
from edgeai.tuning.workloads import Order

MOST_CHILDREN = 8
MEMORY_SHARE = 0.7  # of what is available
FIRST_PATIENCE = 300.0  # seconds
PATIENCE = 10  # times what the first measurement of its kind took, and
LEAST_PATIENCE = 2.0  # seconds more


class Bench:
    """Measures settings, each in a child of its own. Raises `TrialFailed` where one dies, hangs or answers wrongly.

    All have to give the golden answer, or where none is known that of the first, but for near-ties.

    Where memory holds fewer children than there are settings, the one that has waited longest is ended and started
    again when it is wanted.
    """

    def __init__(self, package: Package, golden: Golden, *, worker: Sequence[str] = WORKER) -> None:
        self._package, self._worker = package, worker
        self._children: OrderedDict[EngineSettings, Child] = OrderedDict()
        self.capacity = 1  # children at once
        self._start_timeout: float | None = None  # seconds, once a start was measured
        self._patience: dict[str, float] = {}  # seconds, by what is asked
        self._golden = golden
        self.start_seconds = 0.0  # what a new child costs

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in self._children.values():
            child.close()
        self._children.clear()

    def measure(self, settings: EngineSettings, workload: Workload, order: Order) -> Figures:
        """Figures of one workload. The first settings ever measured decide how long others are waited for."""
        task = {"task": "measure", "workload": workload, "order": asdict(order)}
        return Figures(**self._ask(settings, task, workload))

    def answer(self, settings: EngineSettings) -> Answer:
        """What these settings answer to the golden question."""
        task = {"task": "ask", "expected": self._golden.model_dump(mode="json")}
        answer = Answer(**self._ask(settings, task, "ask"))
        if answer.wrong:
            self._drop(settings)
            raise TrialFailed(f"the answer is wrong: token ids {list(answer.tokens)}")
        if not self._golden.tokens:
            self._golden = Golden(tokens=answer.tokens)
        return answer

    def _ask(self, settings: EngineSettings, task: dict[str, Any], kind: str) -> dict[str, Any]:
        child = self._child(settings)
        started = time.monotonic()
        try:
            answer = child.ask(task, timeout=self._patience.get(kind, FIRST_PATIENCE))
        except TrialFailed:
            self._drop(settings)
            raise
        self._patience.setdefault(kind, LEAST_PATIENCE + PATIENCE * (time.monotonic() - started))
        return answer

    def _drop(self, settings: EngineSettings) -> None:
        self._children.pop(settings).close()

    def _child(self, settings: EngineSettings) -> Child:
        if settings in self._children:
            self._children.move_to_end(settings)
            return self._children[settings]
        while len(self._children) >= self.capacity:
            self._drop(next(iter(self._children)))
        timeout = self._start_timeout or load_timeout(self._package, settings)
        child = Child(self._package.path, settings, timeout=timeout, worker=self._worker)
        self._children[settings] = child
        self.start_seconds = max(self.start_seconds, child.start_seconds)
        self.answer(settings)
        if len(self._children) == 1:
            self.capacity = capacity(child.private_bytes, read_memory().available)
            self._start_timeout = PATIENCE * (1 + child.start_seconds)
        return child


def capacity(private_bytes: int, available: int) -> int:
    """How many children there may be at once, when one is there and has `private_bytes` for itself."""
    more = int(MEMORY_SHARE * available / private_bytes) if private_bytes else 0
    return max(1, min(MOST_CHILDREN, 1 + more))
