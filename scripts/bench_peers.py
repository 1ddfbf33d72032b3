"""The speed of edgeai beside llama.cpp, in turn: on the same weights, and each at its fastest.

All run in processes of their own that wait while another works. A figure is the median over rounds; a ratio is the
median of the ratios within each round, so that a machine whose speed drifts does not decide it. llama.cpp computes each
metric with flash attention or without, whichever it was faster with at the start.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from bench_machine import circumstances, multiplies_bytes_by
from bench_rows import Comparison, Row, Sides, add_outputs, names_beside, page, publish, row_of, settings_told
from patience import PATIENCE

from edgeai.measure.throughput import DECODE_TOKENS
from edgeai.package.package import Package

WORKER = Path(__file__).with_name("bench_worker.py")
TRIALS = 2  # of each setting of the peer's flash attention
FLASH = {"on": 1, "off": 0}  # the peer's flash attention, as llama-server names it
Tried = dict[str, dict[str, float]]  # tokens a second, by metric and setting

# metric: task, argument, label
METRICS = {
    "prefill_512": ("prefill", 512, "prompt of 512, tokens/s"),
    "decode_128": ("decode", 128, "decode at context 128, tokens/s"),
    "decode_2000": ("decode", 2000, "decode at context 2000, tokens/s"),
    "decode_batch8": ("batch", 8, "decode, 8 requests at once, tokens/s"),
}


class Worker:
    """A contestant: answers one task at a time. Raises RuntimeError when it dies."""

    def __init__(self, python: str, kind: str, path: Path, threads: int, *options: str) -> None:
        command = self._command = [python, str(WORKER), kind, str(path), str(threads), *options]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        try:
            self.version = str(self._answer()["version"])
        except BaseException:
            self.__exit__()
            raise

    def __call__(self, task: str, argument: int, seed: int) -> float:
        if self._process.stdin is None:
            raise RuntimeError("the worker has no input")
        self._process.stdin.write(json.dumps([task, argument, seed]) + "\n")
        self._process.stdin.flush()
        return float(self._answer()["value"])

    def measure(self, metric: str, seed: int) -> float:
        task, argument, _ = METRICS[metric]
        return self(task, argument, seed)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """It ends with its input."""
        for pipe in filter(None, (self._process.stdin, self._process.stdout)):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        self._process.wait(timeout=PATIENCE)

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            raise RuntimeError(f"a worker died: {self._command}")
        answer: dict[str, Any] = json.loads(line)
        return answer


class Peer(Worker):
    """llama.cpp. `settle` finds which setting of flash attention is faster for each metric; `measure` uses it."""

    def __init__(self, python: str, path: Path, threads: int) -> None:
        super().__init__(python, "llama.cpp", path, threads, str(DECODE_TOKENS))
        self.tried: Tried = {}

    def settle(self) -> None:
        """Both settings in turn; the best of each counts."""
        for metric in METRICS:
            found: dict[str, list[float]] = {setting: [] for setting in FLASH}
            for number in range(TRIALS):
                for setting, speeds in found.items():
                    speeds.append(self._measure_with(setting, metric, seed=number + 1))
            self.tried[metric] = {setting: round(max(speeds), 2) for setting, speeds in found.items()}

    def measure(self, metric: str, seed: int) -> float:
        return self._measure_with(faster(self.tried[metric]), metric, seed)

    def _measure_with(self, setting: str, metric: str, seed: int) -> float:
        self("flash attention", FLASH[setting], 0)
        return super().measure(metric, seed)


def faster(speeds: Mapping[str, float]) -> str:
    return max(speeds, key=lambda setting: speeds[setting])


def compare(sides: Sides, *, peer_python: str, rounds: int, threads: int) -> Comparison:
    """Measure all of `METRICS`, and what this machine could do at most. Raises RuntimeError when a worker dies."""
    with contextlib.ExitStack() as stack:

        def ours(path: Path) -> Worker:
            return stack.enter_context(Worker(sys.executable, "edgeai", path, threads))

        def peer(path: Path) -> Peer:
            return stack.enter_context(Peer(peer_python, path, threads))

        contestants = {"ours": ours(sides.package), "same": peer(sides.gguf)}
        if sides.best_package and sides.q4_0:
            contestants |= {"ours_best": ours(sides.best_package), "best": peer(sides.q4_0)}
        peers = {name: worker for name, worker in contestants.items() if isinstance(worker, Peer)}
        for settled in peers.values():
            settled.settle()
        found = rounds_of(contestants, rounds)
        bandwidth, rate = (contestants["ours"](task, threads, 0) for task in ("bandwidth", "multiply"))
    rows = [row for metric in METRICS if (row := row_of(metric, found, decimals=1)) is not None]
    notes = [
        "Where tokens/s were measured, edgeai's KV cache is of floats for prompts and of int8 for decoding, each the"
        " faster there and a setting (`--kv-type`); llama.cpp's is float16.",
        limits_text(sides.package, rows, bandwidth, rate, threads),
        flash_text({name: worker.tried for name, worker in peers.items()}),
    ]
    facts = {
        "llama_cpp": peers["same"].version,
        "limits": {"read_gbs": round(bandwidth, 2), "int8_tops": round(rate, 3), "int8_by": multiplies_bytes_by()},
        "flash_attention": {name: worker.tried for name, worker in peers.items()},
        "rounds": found,
    }
    return Comparison(rows, {metric: label for metric, (_, _, label) in METRICS.items()}, notes, facts)


def add_options(parser: argparse.ArgumentParser) -> None:
    """What is put beside what; `sides_of` reads it."""
    parser.add_argument("package", type=Path)
    parser.add_argument("gguf", type=Path, help="the file that the package was built from")
    parser.add_argument("--best-package", type=Path, help="edgeai's fastest package, to be put beside --q4-0")
    parser.add_argument("--q4-0", type=Path, help="llama.cpp's fastest 4-bit type of the same model")
    parser.add_argument("--peer-python", default=sys.executable, help="an interpreter that has llama_cpp")
    parser.add_argument("--threads", type=int, default=2)


def sides_of(args: argparse.Namespace) -> Sides:
    return Sides(args.package, args.gguf, args.best_package, args.q4_0)


def rounds_of(contestants: Mapping[str, Worker], rounds: int) -> list[dict[str, dict[str, float]]]:
    """Figures of each round, by contestant and metric."""
    results = []
    for number in range(-1, rounds):  # round -1 warms up
        figures: dict[str, dict[str, float]] = {name: {} for name in contestants}
        for metric in METRICS:
            seed = 1000 * (number + 2) + len(metric)
            for name, worker in contestants.items():
                figures[name][metric] = worker.measure(metric, seed)
        if number >= 0:
            results.append(figures)
            print(f"round {number + 1}/{rounds}: {json.dumps(figures)}", file=sys.stderr)
    return results


def limits_text(package: Path, rows: Sequence[Row], bandwidth: float, rate: float, threads: int) -> str:
    """How far a package is from what the machine could do at most, in a sentence."""
    weights = Package.open(package).weights.stat().st_size / 1e9
    by_metric = {row.metric: row for row in rows}
    read = weights * by_metric["decode_128"].ours / bandwidth
    parameters = Package.open(package).manifest.architecture
    products = 2 * (parameters.parameters - parameters.vocab_size * parameters.hidden_size) / 1e12
    multiplied = products * by_metric["prefill_512"].ours / rate
    return (
        f"This machine reads {bandwidth:.1f} GB/s and multiplies {rate:.2f} int8 TOPS (onnxruntime's plain product of"
        f" bytes; {multiplies_bytes_by()}) with {threads} threads; decoding at context 128 reaches {read:.0%} of the"
        f" first (weights alone), a prompt of 512 {multiplied:.0%} of the second."
    )


def flash_text(tried: Mapping[str, Tried]) -> str:
    """What the peer was measured with, and what the other setting gave."""
    told = {
        name: {
            metric: (faster(speeds), {setting: f"{speed:.1f}" for setting, speed in speeds.items()})
            for metric, speeds in metrics.items()
        }
        for name, metrics in tried.items()
    }
    return f"llama.cpp's flash attention was set to what was faster, tokens/s. {settings_told(told)}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--rounds", type=int, default=5)
    add_outputs(parser)
    args = parser.parse_args()
    found = circumstances(args.threads) + compare(
        sides_of(args), peer_python=args.peer_python, rounds=args.rounds, threads=args.threads
    )
    publish(page(found, names_beside("llama.cpp")), found, args)


if __name__ == "__main__":
    main()
