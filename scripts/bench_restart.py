"""Seconds to the first token of a long prompt in a fresh process, with and without what an earlier one kept on disk.

bench_restart.py PACKAGE [--rounds N] [--tokens N] [--cold]

Every measurement is a process of its own, so that nothing is in memory; loading the model is left out. The kept blocks
are in the system's page cache where there is room, as after a restart of the server; `--cold` asks the kernel to drop
them first, as after a power cut (needs root).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from edgeai.engine.request import SamplingParams
from edgeai.measure.throughput import random_prompt
from edgeai.model import DiskCache, Model, default_settings
from edgeai.package.package import Package

GIB = 1 << 30


def first_token(package: Package, tokens: int, folder: Path | None) -> float:
    """Seconds from the request to its first token; afterwards all that is kept is on disk."""
    settings = default_settings(package.manifest, max_rows=1, max_context=tokens + 64)
    disk = DiskCache(folder, GIB, 100 * GIB) if folder else None
    with Model.load(package, settings, disk=disk) as model:
        prompt = random_prompt(model.engine, tokens, 1)
        started = time.perf_counter()
        model.engine.add("bench", prompt, SamplingParams(max_tokens=2, temperature=0, ignore_eos=True))
        while not model.engine.step():
            pass
        seconds = time.perf_counter() - started
        while model.engine.has_work:
            model.engine.step()
        if model.store is not None:
            model.store.flush()
    return seconds


def in_a_process(package: Path, tokens: int, folder: Path | None) -> float:
    command = [sys.executable, __file__, str(package), "--tokens", str(tokens), "--worker", str(folder or "")]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def drop_page_cache() -> None:
    subprocess.run(["sync"], check=True)
    Path("/proc/sys/vm/drop_caches").write_text("1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=1000)
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--worker")
    args = parser.parse_args()
    if args.worker is not None:
        print(first_token(Package.open(args.package), args.tokens, Path(args.worker) if args.worker else None))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        in_a_process(args.package, args.tokens, folder)
        kept = sum(path.stat().st_size for path in folder.rglob("*.kv"))
        pairs = []
        for _ in range(args.rounds):
            computed = in_a_process(args.package, args.tokens, None)
            if args.cold:
                drop_page_cache()
            pairs.append((computed, in_a_process(args.package, args.tokens, folder)))
    computed, restored = (float(np.median(column)) for column in zip(*pairs, strict=True))
    ratio = float(np.median([one / other for one, other in pairs]))
    print(f"first token of a prompt of {args.tokens} tokens, medians of {args.rounds} rounds")
    print(f"  computed          {computed:8.3f} s")
    print(f"  restored from disk{restored:8.3f} s, {kept / 1e6:.0f} MB kept")
    print(f"  ratio             {ratio:8.1f}x")


if __name__ == "__main__":
    main()
