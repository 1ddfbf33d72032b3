"""Everything that edgeai is measured by beside llama.cpp: tokens/s (bench_peers) and servers (bench_servers).

bench.py PACKAGE GGUF --best-package PACKAGE --q4-0 GGUF [--rounds N] [--json FILE] [--markdown FILE]

A part that fails loses nothing of the other: what was measured is printed and written, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path

import bench_peers
import bench_servers
from bench_machine import circumstances
from bench_rows import Comparison, add_outputs, names_beside, page, publish

from edgeai.package.package import Package

FAILURES = (RuntimeError, OSError, HTTPException, ValueError, SystemExit)  # of a worker or a server that dies


def fastest(package: Path) -> Comparison:
    """By what right a package stands beside Q4_0: it loses less, which another command measures."""
    card = Package.open(package).manifest.quality
    built = f"{card.mean_kl:.3f} nats per token over {card.tokens} tokens" if card else "nothing"
    note = (
        "The fastest package stands beside Q4_0 because it is nearer to the float weights. That is not measured here:"
        " `./scripts/bench_quantizers --plans fastest --peers Q4_0` prints the mean KL of both on one text, and"
        f" docs/quantization.md quotes it. Building the package measured {built} on a short text."
    )
    return Comparison(notes=[note], facts={"best_package_kl": card.mean_kl if card else None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    bench_peers.add_options(parser)
    parser.add_argument("--rounds", type=int, help="of both; 5 of tokens/s and 3 of servers unless told otherwise")
    bench_servers.add_options(parser)
    add_outputs(parser)
    args = parser.parse_args()
    sides = bench_peers.sides_of(args)
    parts: dict[str, Callable[[], Comparison]] = {
        "tokens/s": lambda: bench_peers.compare(
            sides, peer_python=args.peer_python, rounds=args.rounds or 5, threads=args.threads
        ),
        "servers": lambda: bench_servers.compare(sides, bench_servers.plan_of(args), rounds=args.rounds or 3),
    }
    found, problems = circumstances(args.threads), []
    if args.best_package:
        found += fastest(args.best_package)
    for name, part in parts.items():
        try:
            found += part()
        except FAILURES as error:
            problems.append(f"{name}: not measured, for {error}")
    found.notes += problems
    publish(page(found, names_beside("llama.cpp")), found, args)
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
