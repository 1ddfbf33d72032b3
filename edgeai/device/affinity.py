"""Which processors the threads of this process may run on, and keeping a thread on some of them."""

from __future__ import annotations

import os
from collections.abc import Iterable


def allowed_cpus() -> frozenset[int]:
    """Logical processors, from 0, that this process may run on; where the system does not say, all of them."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def pin_thread(cpus: Iterable[int]) -> frozenset[int]:
    """Keep the calling thread, and threads that it starts from now on, on `cpus`; returns those it is then on.

    Processors that this process may not use are left out. Nothing changes where none is left, for an empty choice, and
    on systems without affinities: a thread on the wrong processor is slow, one that cannot start is worse.
    """
    chosen = frozenset(cpus) & allowed_cpus()
    if chosen and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, chosen)  # 0 is the calling thread, not the process
    return allowed_cpus()
