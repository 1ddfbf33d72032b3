"""Speed and memory over model size, context and rows: bench_growth.py PACKAGE GGUF CACHE [--json FILE] ...

PACKAGE is the default model. The others have random weights in the shapes of known models, rounded to 4 bits; they are
built once into CACHE. Each cell is measured in a process of its own and appended to the JSON, so that a run that was
interrupted, or that ran out of `--seconds`, continues. Beside the figures stands the share of what the machine can do:
of its memory bandwidth when decoding (weights and keys and values, read once a step), of its rate of int8 products when
reading prompts (two operations for each weight and token).
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from growth_report import plots, table
from machine_limits import int8_multiply_rate, read_bandwidth
from synthetic_checkpoint import CONFIGS, write_checkpoint

from edgeai.package.package import Package
from edgeai.sources.gguf import GGUFSource

DEFAULT = "smollm2-135m"
CONTEXTS = (128, 512, 2048, 4096, 8192, 16384)
ROWS = (1, 2, 4, 8, 16, 32)
MOST_CONTEXT = 16384 + 256  # the synthetic packages are made for
BATCH_CONTEXT = 128


@dataclass(frozen=True)
class Cell:
    """One figure to measure."""

    model: str
    kind: str
    context: int
    rows: int

    @property
    def key(self) -> str:
        return f"{self.model}/{self.kind}/{self.context}/{self.rows}"


def cells(model: str, context_length: int) -> list[Cell]:
    contexts = [context for context in CONTEXTS if context + 160 <= context_length]
    found = [Cell(model, "decode", context, 1) for context in contexts]
    found += [Cell(model, "prefill", context, 1) for context in contexts]
    return found + [Cell(model, "decode", BATCH_CONTEXT, rows) for rows in ROWS[1:]]


def package_of(model: str, default: Path, gguf: Path, cache: Path) -> Path:
    """The model's package, built where it is missing."""
    if model == DEFAULT:
        return default
    target = cache / model
    if not target.exists():
        folder = cache / f"{model}-checkpoint"
        shutil.rmtree(folder, ignore_errors=True)
        write_checkpoint(folder, CONFIGS[model], GGUFSource(gguf))
        options = ["--out", target, "--scheme", "rtn", "--bits", "4", "--context", MOST_CONTEXT, "--json"]
        command = [sys.executable, "-m", "edgeai", "build", folder, *options]
        subprocess.run(list(map(str, command)), stdout=subprocess.DEVNULL, check=True)
        shutil.rmtree(folder)
    return target


def measure(package: Path, cell: Cell, threads: int) -> dict[str, Any]:
    worker = Path(__file__).with_name("growth_worker.py")
    task = json.dumps([cell.kind, cell.context, cell.rows])
    command = [sys.executable, str(worker), str(package), str(threads)]
    done = subprocess.run(command, input=task, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout))


def described(package: Package) -> dict[str, float]:
    """What the shares of the machine's limits are computed from."""
    architecture = package.manifest.architecture
    token = 2 * architecture.num_layers * architecture.num_kv_heads * architecture.head_size * 4
    weights = package.weights.stat().st_size
    return {"weights_bytes": weights, "kv_token_bytes": token, "parameters": architecture.parameters}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path)
    parser.add_argument("gguf", type=Path)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--json", type=Path, default=Path("growth.json"), help="figures so far, to be continued")
    parser.add_argument("--plots", type=Path, help="folder for PNG files")
    parser.add_argument("--models", nargs="+", choices=[DEFAULT, *CONFIGS], default=[DEFAULT, *CONFIGS])
    parser.add_argument("--most-context", type=int, default=CONTEXTS[-1])
    parser.add_argument("--seconds", type=float, default=1e9, help="begin nothing new after so long")
    args = parser.parse_args()
    threads = psutil.cpu_count(logical=False) or 1
    document = json.loads(args.json.read_text()) if args.json.exists() else {"cells": {}, "models": {}}
    deadline = time.monotonic() + args.seconds
    if "limits" not in document:
        document["limits"] = {"read_gbs": read_bandwidth(threads), "int8_tops": int8_multiply_rate(threads)}
    for model in args.models:
        package = Package.open(package_of(model, args.package, args.gguf, args.cache))
        document["models"][model] = described(package)
        for cell in cells(model, package.manifest.architecture.context_length):
            if cell.key in document["cells"] or cell.context > args.most_context or time.monotonic() > deadline:
                continue
            document["cells"][cell.key] = measure(package.path, cell, threads)
            args.json.write_text(json.dumps(document, indent=1))
    print(table(document))
    if args.plots:
        plots(document, args.plots)


if __name__ == "__main__":
    main()
