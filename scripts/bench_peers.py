"""Measures edgeai beside llama.cpp on the same weights, in turn, and prints ratios.

Both run in processes of their own that wait while the other works. A figure is the median over rounds; a ratio is the
median of the ratios within each round, so that a machine whose speed drifts does not decide it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
        self._process.wait(timeout=60)

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            raise SystemExit(f"a worker died: {self._command}")
        answer: dict[str, Any] = json.loads(line)
        return answer


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; ratios above 1 mean that edgeai is better."""

    metric: str
    label: str
    ours: float
    same: float
    ratio_same: float


def compare(ours: Worker, same: Worker, rounds: int) -> list[Row]:
    samples: dict[str, list[tuple[float, float]]] = {metric: [] for metric in METRICS}
    for number in range(-1, rounds):  # round -1 warms up
        for metric, (task, argument, _) in METRICS.items():
            seed = 1000 * (number + 2) + len(metric)
            pair = (ours(task, argument, seed), same(task, argument, seed))
            if number >= 0:
                samples[metric].append(pair)
                print(f"round {number + 1}/{rounds} {metric}: {pair[0]:.1f} / {pair[1]:.1f}", file=sys.stderr)
    return [row_of(metric, METRICS[metric][2], pairs) for metric, pairs in samples.items()]


def row_of(metric: str, label: str, pairs: list[tuple[float, float]]) -> Row:
    ours, same = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(mine / theirs for mine, theirs in pairs)
    return Row(metric, label, round(ours, 1), round(same, 1), round(ratio, 3))


def markdown(rows: list[Row]) -> str:
    lines = ["| | edgeai | llama.cpp, same weights | ratio |", "|---|---|---|---|"]
    lines += [f"| {row.label} | {row.ours} | {row.same} | {row.ratio_same:.2f}x |" for row in rows]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path)
    parser.add_argument("gguf", type=Path, help="the file that the package was built from")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peer-python", default=sys.executable, help="an interpreter that has llama_cpp")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    args = parser.parse_args()
    ours = Worker(sys.executable, "edgeai", args.package, args.threads)
    same = Worker(args.peer_python, "llama.cpp", args.gguf, args.threads)
    rows = compare(ours, same, args.rounds)
    ours.close()
    same.close()
    print(markdown(rows))
    if args.json:
        document = {"rows": [dataclasses.asdict(row) for row in rows]}
        args.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
