"""Runs each builder on one checkpoint, in turn, and prints a table: `bench_builders.py CHECKPOINT WORK`.

Seconds are those of the whole process from start to end, peak memory the largest resident set of it or of a process
that it started, as the kernel counted them. Bytes are those of the graph and its weights.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "ORT_DISABLE_TELEMETRY": "1"}
OPTIMUM = """
import sys
from pathlib import Path
import onnx
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
from optimum.exporters.onnx import main_export
source, target = sys.argv[1:]
main_export(source, target + "/float", task="text-generation-with-past", no_post_process=False)
model = onnx.load(target + "/float/model.onnx")
quantizer = MatMulNBitsQuantizer(model, block_size=32, is_symmetric=True, accuracy_level=4)
quantizer.process()
quantizer.model.save_model_to_file(target + "/model.onnx", use_external_data_format=True)
"""


@dataclass(frozen=True, slots=True)
class Builder:
    """A name for the table, and the command that builds the checkpoint into a folder."""

    name: str
    command: list[str]


@dataclass(frozen=True, slots=True)
class Run:
    seconds: float
    peak_bytes: int
    size_bytes: int


def builders(checkpoint: Path, out: Path, optimum: str, genai: str) -> list[Builder]:
    edgeai = [sys.executable, "-P", "-m", "edgeai", "build", str(checkpoint), "--out", str(out), "--bits", "4"]
    cache = str(out.with_name("genai-cache"))
    builder = [genai, "-m", "onnxruntime_genai.models.builder", "-p", "int4", "-e", "cpu"]
    return [
        Builder("edgeai, round to nearest", [*edgeai, "--scheme", "rtn"]),
        Builder("edgeai, error compensation", [*edgeai, "--scheme", "gptq"]),
        Builder("optimum export + onnxruntime MatMulNBits", [optimum, "-c", OPTIMUM, str(checkpoint), str(out)]),
        Builder("onnxruntime-genai builder", [*builder, "-i", str(checkpoint), "-o", str(out), "-c", cache]),
    ]


def run(builder: Builder, out: Path, log: Path) -> Run:
    shutil.rmtree(out, ignore_errors=True)
    with log.open("ab") as said:
        started = time.perf_counter()
        process = subprocess.Popen(builder.command, stdout=said, stderr=said, env=os.environ | OFFLINE)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{builder.name} failed; its last words:\n{log.read_text(errors='replace')[-2000:]}")
    names = [path for path in out.iterdir() if path.name == "weights.bin" or path.name.startswith("model.onnx")]
    return Run(seconds, usage.ru_maxrss * 1024, sum(path.stat().st_size for path in names))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--optimum", required=True, help="Python with the extra export")
    parser.add_argument("--genai", required=True, help="Python with the extra genai")
    parser.add_argument("--rounds", type=int, default=1)
    args = parser.parse_args()
    out = args.work / "out"
    runs: dict[str, list[Run]] = {}
    for _ in range(args.rounds):
        for builder in builders(args.checkpoint, out, args.optimum, args.genai):
            runs.setdefault(builder.name, []).append(run(builder, out, args.work / "builders.log"))
    print("| builder | seconds | peak memory, MB | graph and weights, MB |")
    print("|---|---|---|---|")
    for name, each in runs.items():
        seconds, peak = np.median([(r.seconds, r.peak_bytes) for r in each], axis=0)
        print(f"| {name} | {seconds:.0f} | {peak / 1e6:.0f} | {each[-1].size_bytes / 1e6:.1f} |")


if __name__ == "__main__":
    main()
