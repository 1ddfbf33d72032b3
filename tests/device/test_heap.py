"""Memory that is freed goes back to the system."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.fixtures.patience import PATIENCE

SCRIPT = """
import numpy as np
from edgeai.device.heap import map_large_blocks
from pathlib import Path

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

if {mapped}:
    assert map_large_blocks()
np.ones(30 << 20, np.uint8)  # freed at once: from now on glibc takes such sizes from the heap
before = resident()
blocks = [np.ones(1 << 20, np.uint8) for _ in range(64)]
del blocks[:-1]  # the last one keeps the heap from shrinking
print(resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's heap")
@pytest.mark.parametrize("mapped", [True, False])
def test_freed_blocks_go_back(mapped: bool) -> None:
    held = int(run(SCRIPT.format(mapped=mapped)))
    assert (held < 8 << 20) == mapped  # without it they stay, which is why it is needed


THREAD = """
import ctypes
from concurrent.futures import ThreadPoolExecutor
from edgeai.device.heap import share_one_heap

if {shared}:
    assert share_one_heap()
malloc = ctypes.CDLL(None).malloc
malloc.argtypes, malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
with ThreadPoolExecutor(1) as pool:
    print(abs(pool.submit(malloc, 1000).result() - malloc(1000)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's heap")
@pytest.mark.parametrize("shared", [True, False])
def test_threads_allocate_from_the_main_heap(shared: bool) -> None:
    assert (int(run(THREAD.format(shared=shared))) < 1 << 30) == shared


def run(script: str) -> str:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=PATIENCE)
    return done.stdout
