"""The golden answer of a package with some settings, by a fresh child process."""

from __future__ import annotations

from collections.abc import Sequence

from edgeai.engine.config import EngineSettings
from edgeai.package.package import Package
from edgeai.tuning.child import WORKER, Child, load_timeout
from edgeai.tuning.golden import ANSWER_TOKENS, Answer
from edgeai.tuning.profile import Golden

ANSWER_SECONDS = 120  # for an answer whose speed is not known
LEAST_SECONDS, PATIENCE = 10, 10  # for others, and times what it took when it was measured


def probe(package: Package, settings: EngineSettings, golden: Golden, *, worker: Sequence[str] | None = None) -> Answer:
    """What the package answers, held against `golden`.

    Raises `TrialFailed` when the child dies, hangs or cannot load the package.
    """
    speed = golden.tokens_per_second
    timeout = LEAST_SECONDS + PATIENCE * ANSWER_TOKENS / speed if speed else ANSWER_SECONDS
    task = {"task": "ask", "expected": golden.model_dump(mode="json")}
    with Child(package.path, settings, timeout=load_timeout(package, settings), worker=worker or WORKER) as child:
        return Answer(**child.ask(task, timeout=timeout))
