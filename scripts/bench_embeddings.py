"""Measures edgeai's embeddings beside sentence-transformers on the same weights, in turn, and prints tables.

    bench_embeddings.py compare PACKAGE RECIPE [--rounds N] [--threads N]
    bench_embeddings.py worker edgeai|sentence-transformers MODEL THREADS

Both run in processes of their own that wait while the other works. Throughput is the median over rounds, a ratio the
median of the ratios within each round; the last column is that of processor time, which a busy machine changes less.
Texts are those of tests/data/sentences.txt, which no build has seen; long ones are made of English ones.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from patience import PATIENCE

SENTENCES = Path(__file__).parents[1] / "tests" / "data" / "sentences.txt"
LONG_CHARACTERS = 900
SINGLE = 24  # requests of one text each
Embed = Callable[[Sequence[str]], Any]


def texts() -> dict[str, list[str]]:
    """Short ones as they are, long ones of several sentences, a few to be sent one at a time."""
    lines = [line.split("\t", 1) for line in SENTENCES.read_text(encoding="utf-8").splitlines()]
    short = [text for _, text in lines]
    english = [text for language, text in lines if language == "en"]
    long = []
    for start in range(0, len(english) - 4, 2):
        text = ""
        for sentence in english[start:] + english:
            text += sentence + " "
            if len(text) > LONG_CHARACTERS:
                break
        long.append(text.strip())
    return {"short": short, "long": long, "single": short[:SINGLE]}


def edgeai_embed(package: Path, threads: int) -> Embed:
    from edgeai.encoder.encoder import Encoder
    from edgeai.package.package import Package

    encoder = Encoder(Package.open(package), threads=threads)
    return lambda given: encoder.embed(given, truncate=True)


def sentence_transformers_embed(folder: Path, threads: int) -> Embed:
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(threads)
    model = SentenceTransformer(str(folder), device="cpu")
    return lambda given: model.encode(list(given), batch_size=32, show_progress_bar=False)


def work(kind: str, model: Path, threads: int) -> None:
    """Answer tasks, a line each: `vectors` of all texts, or texts a second of a group."""
    embed = (edgeai_embed if kind == "edgeai" else sentence_transformers_embed)(model, threads)
    groups = texts()
    print(json.dumps({"ready": kind}), flush=True)
    for line in sys.stdin:
        task = line.strip()
        if task == "vectors":
            vectors = np.concatenate([np.asarray(embed(groups[name]), "<f4") for name in ("short", "long")])
            answer = {"shape": vectors.shape, "value": base64.b64encode(vectors.tobytes()).decode()}
        else:
            started, used = time.perf_counter(), time.process_time()
            for batch in [[text] for text in groups[task]] if task == "single" else [groups[task]]:
                embed(batch)
            seconds, used = time.perf_counter() - started, time.process_time() - used
            answer = {"value": len(groups[task]) / seconds, "processor": used}
        print(json.dumps(answer), flush=True)


class Worker:
    """A contestant: answers one task at a time."""

    def __init__(self, kind: str, model: Path, threads: int) -> None:
        command = [sys.executable, __file__, "worker", kind, str(model), str(threads)]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(threads)}
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self._answer()

    def __call__(self, task: str) -> dict[str, Any]:
        if self._process.stdin is None:
            raise RuntimeError("the worker has no input")
        self._process.stdin.write(task + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(timeout=PATIENCE)

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            raise SystemExit("a worker died")
        answer: dict[str, Any] = json.loads(line)
        return answer


def vectors_of(worker: Worker) -> Any:
    answer = worker("vectors")
    return np.frombuffer(base64.b64decode(answer["value"]), "<f4").reshape(answer["shape"])


def quality_table(ours: Worker, theirs: Worker) -> str:
    """Cosines to sentence-transformers' float32 vectors, by language group."""
    cosines = (vectors_of(ours) * vectors_of(theirs)).sum(axis=1)
    languages = [line.split("\t", 1)[0] for line in SENTENCES.read_text(encoding="utf-8").splitlines()]
    groups = {
        "English sentences": [i for i, name in enumerate(languages) if name == "en"],
        f"sentences in {len(set(languages)) - 1} other languages": [i for i, n in enumerate(languages) if n != "en"],
        "long English texts": list(range(len(languages), len(cosines))),
        "all": list(range(len(cosines))),
    }
    lines = ["| | texts | mean cosine | least cosine |", "|---|---|---|---|"]
    lines += [
        f"| {name} | {len(where)} | {cosines[where].mean():.5f} | {cosines[where].min():.5f} |"
        for name, where in groups.items()
    ]
    return "\n".join(lines)


def speed_table(ours: Worker, theirs: Worker, rounds: int) -> str:
    """Texts a second, in turn."""
    labels = {"short": "short sentences, all at once", "long": "long texts, all at once", "single": "short, one by one"}
    samples: dict[str, list[tuple[float, float]]] = {task: [] for task in labels}
    processor: dict[str, list[float]] = {task: [] for task in labels}
    for number in range(-1, rounds):  # round -1 warms up
        for task in labels:
            mine, other = ours(task), theirs(task)
            pair = (mine["value"], other["value"])
            if number >= 0:
                processor[task].append(other["processor"] / mine["processor"])
                samples[task].append(pair)
                print(f"round {number + 1}/{rounds} {task}: {pair[0]:.1f} / {pair[1]:.1f}", file=sys.stderr)
    lines = [
        "| texts a second | edgeai | sentence-transformers | ratio | by processor time |",
        "|---|---|---|---|---|",
    ]
    for task, pairs in samples.items():
        speeds = [statistics.median(column) for column in zip(*pairs, strict=True)]
        ratio, used = statistics.median(a / b for a, b in pairs), statistics.median(processor[task])
        lines.append(f"| {labels[task]} | {speeds[0]:.1f} | {speeds[1]:.1f} | {ratio:.2f}x | {used:.2f}x |")
    return "\n".join(lines)


def compare(package: Path, recipe: str, rounds: int, threads: int) -> None:
    from edgeai.build.target import open_target
    from edgeai.config import cache_dir
    from edgeai.package.package import Package
    from edgeai.progress import silent
    from edgeai.sources.folder import FolderSource

    source = open_target(recipe, cache_dir(), silent).source
    if not isinstance(source, FolderSource):
        raise SystemExit(f"{recipe} is not built from a checkpoint's folder")
    ours, theirs = Worker("edgeai", package, threads), Worker("sentence-transformers", source.path, threads)
    size = sum(path.stat().st_size for path in source.path.glob("*.safetensors"))
    print(f"package {Package.open(package).size_bytes / 1e6:.1f} MB, float checkpoint {size / 1e6:.1f} MB\n")
    print(quality_table(ours, theirs), flush=True)
    print()
    print(speed_table(ours, theirs, rounds))
    ours.close()
    theirs.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    worker = commands.add_parser("worker")
    worker.add_argument("kind", choices=["edgeai", "sentence-transformers"])
    worker.add_argument("model", type=Path)
    worker.add_argument("threads", type=int)
    comparing = commands.add_parser("compare")
    comparing.add_argument("package", type=Path)
    comparing.add_argument("recipe")
    comparing.add_argument("--rounds", type=int, default=5)
    comparing.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    if args.command == "worker":
        work(args.kind, args.model, args.threads)
    else:
        compare(args.package, args.recipe, args.rounds, args.threads)


if __name__ == "__main__":
    main()
