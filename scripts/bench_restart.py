"""Seconds to the first token of a conversation with a long system prompt in a fresh process: computed, restored from
what an earlier process kept on disk, and with the prompt precomputed in the package and nothing on disk.

bench_restart.py PACKAGE [--rounds N] [--tokens N] [--cold]

Every measurement is a process of its own, so that nothing is in memory; loading the model is left out. The kept blocks
are in the system's page cache where there is room, as after a restart of the server; `--cold` asks the kernel to drop
them first, as after a power cut (needs root).
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from edgeai.engine.request import SamplingParams
from edgeai.model import DiskCache, Model, default_settings
from edgeai.package.package import Package
from edgeai.warm import warm

GIB = 1 << 30
WORDS = ("water", "clinic", "answer", "always", "person", "family", "doctor", "please", "village", "open", "hour")
GREEDY = SamplingParams(max_tokens=2, temperature=0, ignore_eos=True)
WAYS = ("computed", "restored from disk", "precomputed in the package")


def system_prompt(model: Model, tokens: int) -> str:
    """Rules without sense, the same each time, of about so many tokens."""
    rng, text = np.random.default_rng(1), ""
    while len(model.encode_text(text)) < tokens:
        text += f"Rule {text.count('Rule') + 1}: {' '.join(rng.choice(WORDS, 12))}.\n"
    return text


def first_token(package: Package, tokens: int, folder: Path | None) -> float:
    """Seconds from the request to its first token; afterwards all that is kept is on disk."""
    settings = default_settings(package.manifest, max_rows=1, max_context=tokens + 256)
    disk = DiskCache(folder, GIB, 100 * GIB) if folder else None
    with Model.load(package, settings, disk=disk) as model:
        messages = [{"role": "system", "content": system_prompt(model, tokens)}, {"role": "user", "content": "Hello?"}]
        started = time.perf_counter()
        model.engine.add("bench", model.encode_chat(messages), GREEDY)
        while not model.engine.step():
            pass
        seconds = time.perf_counter() - started
        while model.engine.has_work:
            model.engine.step()
        if model.store is not None:
            model.store.flush()
    return seconds


def in_a_process(package: Path, tokens: int, folder: Path | None, *, cold: bool = False) -> float:
    if cold:
        drop_page_cache()
    command = [sys.executable, __file__, str(package), "--tokens", str(tokens), "--worker", str(folder or "")]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def drop_page_cache() -> None:
    subprocess.run(["sync"], check=True)
    Path("/proc/sys/vm/drop_caches").write_text("1")


def warmed(package: Path, tokens: int, work: Path) -> Path:
    """A copy of the package that has the prompt computed."""
    copy = Path(shutil.copytree(package, work / "warm"))
    with Model.load(Package.open(copy)) as model:
        prompt = system_prompt(model, tokens)
    return warm(Package.open(copy), [prompt]).path


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
        folder, package = Path(name) / "kv", warmed(args.package, args.tokens, Path(name))
        in_a_process(args.package, args.tokens, folder)
        kept = sum(path.stat().st_size for path in folder.rglob("*.kv"))
        added = sum((package / file).stat().st_size for file in Package.open(package).warm_files)
        rounds = [
            (
                in_a_process(args.package, args.tokens, None, cold=args.cold),
                in_a_process(args.package, args.tokens, folder, cold=args.cold),
                in_a_process(package, args.tokens, None, cold=args.cold),
            )
            for _ in range(args.rounds)
        ]
    print(f"first token after a system prompt of {args.tokens} tokens, medians of {args.rounds} rounds\n")
    print("| prompt | seconds | ratio | bytes |\n|---|---|---|---|")
    for way, size, column in zip(WAYS, (0, kept, added), zip(*rounds, strict=True), strict=True):
        ratio = float(np.median([row[0] / seconds for row, seconds in zip(rounds, column, strict=True)]))
        print(f"| {way} | {float(np.median(column)):.3f} | {ratio:.1f}x | {size / 1e6:.0f} MB |")


if __name__ == "__main__":
    main()
