"""Measures edgeai beside llama.cpp, in turn, and prints ratios: on the same weights, and each at its fastest.

All run in processes of their own that wait while another works. A figure is the median over rounds; a ratio is the
median of the ratios within each round, so that a machine whose speed drifts does not decide it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench_rows import Row, markdown, row_of, write_rows
from patience import PATIENCE

from edgeai.package.package import Package

WORKER = Path(__file__).with_name("bench_worker.py")

# metric: task, argument, label
METRICS = {
    "prefill_512": ("prefill", 512, "prompt of 512, tokens/s"),
    "decode_128": ("decode", 128, "decode at context 128, tokens/s"),
    "decode_2000": ("decode", 2000, "decode at context 2000, tokens/s"),
    "decode_batch8": ("batch", 8, "decode, 8 requests at once, tokens/s"),
}


class Worker:
    """A contestant: answers one task at a time."""

    def __init__(self, python: str, kind: str, path: Path, threads: int) -> None:
        self.threads = threads
        command = self._command = [python, str(WORKER), kind, str(path), str(threads)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self._answer()

    def __call__(self, task: str, argument: int, seed: int) -> float:
        if self._process.stdin is None:
            raise RuntimeError("the worker has no input")
        self._process.stdin.write(json.dumps([task, argument, seed]) + "\n")
        self._process.stdin.flush()
        return float(self._answer()["value"])

    def close(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(timeout=PATIENCE)

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            raise SystemExit(f"a worker died: {self._command}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def measure(contestants: Mapping[str, Worker], rounds: int) -> list[dict[str, dict[str, float]]]:
    """Figures of each round, by contestant and metric."""
    results = []
    for number in range(-1, rounds):  # round -1 warms up
        figures: dict[str, dict[str, float]] = {name: {} for name in contestants}
        for metric, (task, argument, _) in METRICS.items():
            seed = 1000 * (number + 2) + len(metric)
            for name, worker in contestants.items():
                figures[name][metric] = worker(task, argument, seed)
        if number >= 0:
            results.append(figures)
            print(f"round {number + 1}/{rounds}: {json.dumps(figures)}", file=sys.stderr)
    return results


def limits(worker: Worker, package: Path, rows: Sequence[Row]) -> str:
    """How far a package is from what the machine could do at most, in a sentence."""
    bandwidth, rate = worker("bandwidth", 2, 0), worker("multiply", 2, 0)
    weights = Package.open(package).weights.stat().st_size / 1e9
    by_metric = {row.metric: row for row in rows}
    read = weights * by_metric["decode_128"].ours / bandwidth
    parameters = Package.open(package).manifest.architecture
    products = 2 * (parameters.parameters - parameters.vocab_size * parameters.hidden_size) / 1e12
    multiplied = products * by_metric["prefill_512"].ours / rate
    return (
        f"This machine reads {bandwidth:.1f} GB/s and multiplies {rate:.2f} int8 TOPS (onnxruntime's plain product of"
        f" bytes) with {worker.threads} threads; decoding at context 128 reaches {read:.0%} of the first (weights"
        f" alone), a prompt of 512 {multiplied:.0%} of the second."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path)
    parser.add_argument("gguf", type=Path, help="the file that the package was built from")
    parser.add_argument("--best-package", type=Path, help="edgeai's fastest package, to be put beside --q4-0")
    parser.add_argument("--q4-0", type=Path, help="llama.cpp's fastest 4-bit type of the same model")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peer-python", default=sys.executable, help="an interpreter that has llama_cpp")
    parser.add_argument("--also", type=Path, help="rows of another benchmark to add, such as those of bench_servers")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    args = parser.parse_args()
    contestants = {
        "ours": Worker(sys.executable, "edgeai", args.package, args.threads),
        "same": Worker(args.peer_python, "llama.cpp", args.gguf, args.threads),
    }
    if args.best_package and args.q4_0:
        contestants["ours_best"] = Worker(sys.executable, "edgeai", args.best_package, args.threads)
        contestants["best"] = Worker(args.peer_python, "llama.cpp", args.q4_0, args.threads)
    rounds = measure(contestants, args.rounds)
    rows = [row for metric in METRICS if (row := row_of(metric, rounds, decimals=1)) is not None]
    closing = limits(contestants["ours"], args.package, rows)
    for worker in contestants.values():
        worker.close()
    labels = {metric: label for metric, (_, _, label) in METRICS.items()}
    if args.also:
        document = json.loads(args.also.read_text())
        rows += [Row(**row) for row in document["rows"]]
        labels |= document["labels"]
    print(markdown(rows, labels, peer="llama.cpp"))
    print(f"\n{closing}")
    write_rows(args.json, rows, labels)


if __name__ == "__main__":
    main()
