"""Writes a synthetic checkpoint of Qwen2.5-1.5B's shape and builds it: `bench_memory.py TOKENIZER.gguf WORK`.

The checkpoint is written tensor by tensor, so that this process stays small; the build runs in a process of its own,
whose time and peak memory are printed. Its speech is noise, so only time and memory say anything.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from synthetic_checkpoint import CONFIGS, write_checkpoint

from edgeai.sources.gguf import GGUFSource

CONFIG = CONFIGS["qwen2.5-1.5b"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gguf", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--layers", type=int, default=CONFIG["num_hidden_layers"])
    parser.add_argument("--scheme", choices=["rtn", "gptq"], default="rtn")
    args = parser.parse_args()
    folder = args.work / "checkpoint"
    size = write_checkpoint(folder, CONFIG | {"num_hidden_layers": args.layers}, GGUFSource(args.gguf))
    print(f"checkpoint: {size / 1e9:.2f} GB in {args.layers} layers", file=sys.stderr)
    options = ["--out", args.work / "package", "--scheme", args.scheme, "--bits", "4", "--json"]
    command = [sys.executable, "-P", "-m", "edgeai", "build", folder, *options]
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, text=True, check=True)
    report = json.loads(done.stdout)
    print("| scheme | checkpoint | package | time | peak memory |\n|---|---|---|---|---|")
    memory, package = report["peak_rss_bytes"] / 1e9, report["size_bytes"] / 1e9
    print(f"| {args.scheme} | {size / 1e9:.2f} GB | {package:.2f} GB | {report['seconds']:.0f} s | {memory:.2f} GB |")


if __name__ == "__main__":
    main()
