"""Speed and memory over model size, context and rows: bench_growth.py PACKAGE GGUF CACHE [--json FILE] ...

PACKAGE is the default model. The others have random weights in the shapes of known models, rounded to 4 bits by the
plain quantizer, for speed does not depend on values; they are built once into CACHE. Each visit of a group (a model at
one context with one type of KV cache) is a process of its own, whose figures are appended to the JSON: a run that was
interrupted, or that ran out of `--seconds`, continues, and figures are the least of `--visits`, spread over the time.
A table may be made in pieces, of `--models`, `--contexts`, `--rows` and `--kv-types`, and of files by `--merge`.
What would not fit into `--most-memory` is not measured, and reported with its bytes.
"""

from __future__ import annotations

import argparse
import functools
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
from growth_cells import CONTEXTS, ROWS, Document, Group, groups_of, merged, next_group, rows_that_fit
from growth_report import report
from machine_limits import int8_multiply_rate, read_bandwidth
from synthetic_checkpoint import CONFIGS, write_checkpoint

from edgeai.device.budget import estimate
from edgeai.engine.config import KV_BYTES, EngineSettings
from edgeai.engine.scores import token_bytes as score_bytes
from edgeai.model import model_shape
from edgeai.package.durable import write_file
from edgeai.package.package import Package
from edgeai.sources.gguf import GGUFSource

DEFAULT = "smollm2-135m"
CHECK_CONTEXT = 2048
MOST_BYTES = 14e9  # of one process


def package_of(model: str, default: Path, gguf: Path, cache: Path) -> Path:
    """The model's package, built where it is missing."""
    if model == DEFAULT:
        return default
    target = cache / model
    if not target.exists():
        folder = cache / f"{model}-checkpoint"
        shutil.rmtree(folder, ignore_errors=True)
        write_checkpoint(folder, CONFIGS[model], GGUFSource(gguf))
        options = ["--out", target, "--scheme", "rtn", "--bits", "4", "--json"]
        command = [sys.executable, "-P", "-m", "edgeai", "build", folder, *options]
        subprocess.run(list(map(str, command)), stdout=subprocess.DEVNULL, check=True)
        shutil.rmtree(folder)
    return target


def described(package: Package) -> dict[str, Any]:
    """A model's sizes in bytes; what it takes once it is loaded and has run is the engine's own estimate."""
    architecture, settings = package.manifest.architecture, EngineSettings()
    weights = package.weights.stat().st_size
    kinds = {kind: model_shape(package.manifest, kind) for kind in KV_BYTES}
    costs = estimate(weights=weights, hidden=architecture.hidden_size, vocab=architecture.vocab_size, token=0, draft=0)
    scores = settings.chunk_tokens * score_bytes(kinds["float32"], 1)  # of a chunk, for each position of the cache
    return {
        "parameters": architecture.parameters,
        "context_length": architecture.context_length,
        "weights_bytes": weights,
        "load_bytes": costs.load + costs.scratch(ROWS[-1], settings.chunk_tokens) + settings.scratch_bytes,
        "whole_scores_tokens": settings.scratch_bytes // scores,
        "token_bytes": {kind: shape.token_bytes for kind, shape in kinds.items()},
    }


def worker(package: Path, threads: int, task: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, str(Path(__file__).with_name("growth_worker.py")), str(package), str(threads)]
    done = subprocess.run(command, input=json.dumps(task), stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout))


def wanted_groups(document: Document, args: argparse.Namespace) -> dict[Group, list[int]]:
    """The groups of the chosen models and contexts, each with those of the chosen rows that memory holds."""
    found = {}
    for model in args.models:
        about = document["models"][model]
        for group in groups_of(model, about["context_length"], args.contexts):
            rows = rows_that_fit(about, group, document["most_bytes"], args.rows)
            if rows and group.kv_type in args.kv_types:
                found[group] = rows
    return found


def measure(document: Document, packages: dict[str, Path], args: argparse.Namespace) -> None:
    """Visit groups until all were visited often enough, or time is over; every visit is kept at once."""
    threads, deadline = document["threads"], time.monotonic() + args.seconds
    clock = time.process_time if threads == 1 else time.perf_counter
    limits = {"read_gbs": read_bandwidth(threads, clock), "int8_tops": int8_multiply_rate(threads, clock)}
    document["limits"].append(limits)
    wanted = wanted_groups(document, args)
    while (group := next_group(wanted, document, args.visits)) and time.monotonic() < deadline:
        task = {"kv_type": group.kv_type, "context": group.context, "rows": wanted[group]}
        visit = worker(packages[group.model], threads, task)
        document["visits"].setdefault(group.key, []).append(visit)
        write_file(args.json, json.dumps(document).encode())
        print(f"{group.key}: {time.monotonic() - deadline + args.seconds:.0f} s", file=sys.stderr)
    if "check" not in document and DEFAULT in packages and time.monotonic() < deadline:
        document["check"] = worker(packages[DEFAULT], threads, {"check": CHECK_CONTEXT})
        write_file(args.json, json.dumps(document).encode())


def arguments() -> argparse.Namespace:
    cores = psutil.cpu_count(logical=False) or 1
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path)
    parser.add_argument("gguf", type=Path)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--json", type=Path, default=Path("growth.json"), help="figures so far, to be continued")
    parser.add_argument("--plots", type=Path, help="folder for PNG files")
    parser.add_argument("--models", nargs="+", choices=[DEFAULT, *CONFIGS], default=[DEFAULT, *CONFIGS])
    parser.add_argument("--contexts", nargs="+", type=int, choices=CONTEXTS, default=list(CONTEXTS))
    parser.add_argument("--rows", nargs="+", type=int, choices=ROWS, default=list(ROWS))
    parser.add_argument("--kv-types", nargs="+", choices=list(KV_BYTES), default=list(KV_BYTES))
    parser.add_argument("--merge", nargs="+", type=Path, default=[], help="figures of other runs, to be added")
    parser.add_argument("--most-memory", type=float, help="GB that one process may take; 14 unless told otherwise")
    parser.add_argument("--threads", type=int, default=cores, help="1: CPU time, for machines with other work")
    parser.add_argument("--visits", type=int, default=3, help="of every group; 0: only report what there is")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin nothing new after so long")
    args = parser.parse_args()
    try:
        args.document = document_of(args)
    except (OSError, ValueError, KeyError) as error:
        parser.error(f"what was measured before cannot be used: {error!r}")
    if args.visits and (before := args.document["threads"]) != args.threads:
        parser.error(f"{args.json} was measured with --threads {before}, go on with that or elsewhere")
    return args


def document_of(args: argparse.Namespace) -> Document:
    """What was measured so far, in this file and in those to be merged. Raises ValueError where they do not fit."""
    files = [args.json, *args.merge] if args.json.exists() else args.merge
    empty: Document = {"threads": args.threads, "limits": [], "models": {}, "visits": {}, "most_bytes": MOST_BYTES}
    document = functools.reduce(merged, [json.loads(file.read_text()) for file in files]) if files else empty
    return document | ({"most_bytes": args.most_memory * 1e9} if args.most_memory else {})


def main() -> None:
    args = arguments()
    document = args.document
    if args.visits:
        packages = {model: package_of(model, args.package, args.gguf, args.cache) for model in args.models}
        document["models"] |= {model: described(Package.open(path)) for model, path in packages.items()}
        measure(document, packages, args)
    elif args.merge:
        write_file(args.json, json.dumps(document).encode())
    print(report(document))
    if args.plots:
        from growth_plots import plots

        plots(document, args.plots)


if __name__ == "__main__":
    main()
