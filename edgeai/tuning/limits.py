"""What settings may ask of this machine, whatever a profile says: it may have been given away to others since."""

from __future__ import annotations

from collections.abc import Iterable

from edgeai.tuning.knobs import Fields

# What runs where nothing else does: one thread that never waits for another, little memory, nothing clever.
CONSERVATIVE: Fields = {
    "threads": 1,
    "cpus": (),
    "spin_us": 0,
    "chunk_tokens": 64,
    "max_rows": 2,
    "draft_tokens": 0,
    "kv_type": "float32",
    "prompt_weights": False,
}


def limited(values: Fields, allowed: Iterable[int], usable: float) -> Fields:
    """`values` within the processors in `allowed` and `usable` processors' worth of time.

    There are never more threads than processors, and threads stay on processors only where there is one for each.
    """
    here = frozenset(allowed)
    fitting = dict(values)
    if "threads" in fitting:
        fitting["threads"] = max(1, min(fitting["threads"], len(here), int(usable)))
    cpus = tuple(cpu for cpu in fitting.get("cpus", ()) if cpu in here)
    if "cpus" in fitting:
        fitting["cpus"] = cpus if len(cpus) >= fitting.get("threads", 1) else ()
    return fitting
