"""The table of bench_quantizers: `bench_quantizers.py WORK`, where WORK holds `float/` and `float.gguf`.

llama.cpp's protocol: chunks of 512 tokens, the second half of each scored, against the plain numpy forward pass of the
float checkpoint. "speed" is decoding at context 128 beside the plain int4 package, in turn.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from edgeai.architectures.config import DecoderConfig
from edgeai.architectures.reference import ReferenceDecoder
from edgeai.architectures.registry import decoder_config, run_reference
from edgeai.build.pipeline import build_package
from edgeai.build.validate import GraphRun, log_softmax
from edgeai.engine.config import EngineSettings
from edgeai.measure.throughput import decode_speed
from edgeai.model import Model
from edgeai.package.manifest import GRAPH_NAME, PROMPT_GRAPH_NAME
from edgeai.package.package import Package
from edgeai.recipe import QuantizationPlan
from edgeai.sources.folder import FolderSource
from edgeai.text.tokenizer import Tokenizer

TEXT = Path(__file__).parent.parent / "tests" / "data" / "held_out_long.txt"
CHUNK = 512
PLANS: dict[str, dict[str, Any]] = {
    "rtn, 4 bits": {"scheme": "rtn", "bits": 4},
    "gptq, 4 bits": {"scheme": "gptq", "bits": 4},
    "gptq, 92 MB": {"scheme": "gptq", "max_size": "92MB"},
    "gptq, 105 MB": {"scheme": "gptq", "max_size": "105MB"},
    "rtn, 8 bits": {"scheme": "rtn", "bits": 8},
    "fastest": {"scheme": "gptq", "bits": 4, "block_size": 128, "table_bits": 4},  # as scripts/bench puts beside Q4_0
}
PEERS = ["IQ4_XS", "Q4_0", "Q4_1", "Q4_K_S", "Q4_K_M", "Q5_K_M", "Q8_0"]
WITH_PROMPT_WEIGHTS = {"fastest"}
BASE = "gptq, 4 bits"  # whose speed is 1, or that of the first plan where it is left out


def chunks_of(source: FolderSource, text: Path, count: int) -> np.ndarray:
    """Evenly spread chunks of a text: [chunks, CHUNK] token ids, all there are where it is short."""
    ids = Tokenizer(source.tokenizer().tokenizer_json.decode()).encode(text.read_text(encoding="utf-8"))
    count = min(count, len(ids) // CHUNK)
    starts = np.linspace(0, len(ids) // CHUNK - 1, count).astype(int) * CHUNK
    return np.array([ids[start : start + CHUNK] for start in starts], np.int64)


def reference_logits(source: FolderSource, config: DecoderConfig, chunks: np.ndarray, path: Path) -> np.ndarray:
    """Logits [chunks, CHUNK / 2 - 1, vocabulary] of the float model, in a file."""
    scored = CHUNK // 2 - 1
    logits = np.lib.format.open_memmap(path, "w+", np.float32, (len(chunks), scored, config.vocab_size))
    for number, chunk in enumerate(chunks):
        decoder = ReferenceDecoder(config, source.load, chunk.tolist())
        run_reference(decoder)
        decoder.hidden = decoder.hidden[CHUNK // 2 : -1]
        start = 0
        for part in decoder.logits():
            logits[number, :, start : start + part.shape[1]] = part
            start += part.shape[1]
    logits.flush()
    return logits


def quality(package: Path, config: DecoderConfig, chunks: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """Of the second half of every chunk; the first is read with weights for prompts where there are some."""
    plain, half, prompts = GraphRun(package / GRAPH_NAME, config), CHUNK // 2, package / PROMPT_GRAPH_NAME
    reader = GraphRun(prompts, config) if prompts.exists() else plain
    kl, losses, same = [], [], []
    for chunk, expected in zip(chunks, reference, strict=True):
        ids = chunk.tolist()
        actual = plain.logits(ids, [CHUNK - half], reader.cached(ids[:half]))[:-1]
        following = chunk[CHUNK // 2 + 1 :]
        for row in range(len(expected)):
            wanted, found = log_softmax(expected[row]), log_softmax(actual[row])
            kl.append(float((np.exp(wanted) * (wanted - found)).sum()))
            losses.append(-float(found[following[row]]))
            same.append(int(found.argmax()) == int(wanted.argmax()))
    numbers = {"kl": np.mean(kl), "p99": np.quantile(kl, 0.99), "same": np.mean(same), "ppl": np.exp(np.mean(losses))}
    return {name: float(value) for name, value in numbers.items()}


def speeds(packages: dict[str, Path], rounds: int) -> dict[str, float]:
    """Decoding speed of each package over the base's: medians of the ratios within each round."""
    settings = EngineSettings(threads=1, max_rows=1, max_context=512, kv_budget_bytes=1 << 28)
    models = {name: Model.load(Package.open(path), settings) for name, path in packages.items()}
    ratios: dict[str, list[float]] = {name: [] for name in models}
    for number in range(rounds):
        found = {name: decode_speed(model.engine, seed=number + 1) for name, model in models.items()}
        for name, speed in found.items():
            ratios[name].append(speed / found.get(BASE, next(iter(found.values()))))
    return {name: statistics.median(values) for name, values in ratios.items()}


def peer(python: str, work: Path, kind: str) -> tuple[int, dict[str, float]]:
    script, target = Path(__file__).with_name("bench_quantizers_peer.py"), work / f"{kind}.gguf"
    command = [python, script, work / "float.gguf", kind, target, work / "ids.npy", work / "reference.npy"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
    size = target.stat().st_size
    target.unlink()
    return size, json.loads(done.stdout.splitlines()[-1])


def line(name: str, size: int, found: dict[str, float], speed: str = "") -> str:
    numbers = f"{found['ppl']:.2f} | {found['kl']:.3f} | {found['p99']:.2f} | {100 * found['same']:.1f} %"
    return f"| {name} | {size / 1e6:.1f} M | {numbers} | {speed} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--chunks", type=int, default=24)
    parser.add_argument("--text", type=Path, default=TEXT, help="a text that nothing was calibrated with")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--plans", nargs="+", choices=PLANS, default=list(PLANS), help="of edgeai's packages")
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=PEERS, help="llama.cpp's types")
    args = parser.parse_args()
    work: Path = args.work
    source = FolderSource(work / "float")
    config = decoder_config(source.config)
    chunks = chunks_of(source, args.text, args.chunks)
    np.save(work / "ids.npy", chunks)
    reference = reference_logits(source, config, chunks, work / "reference.npy")
    sizes, found = {}, {}
    for name in args.plans:
        out = work / name.replace(" ", "-")
        if not out.exists():
            options = {"out": out, "home": work, "cache": work}
            plan, prompts = QuantizationPlan(**PLANS[name]), name in WITH_PROMPT_WEIGHTS
            build_package(str(work / "float"), quantization=plan, prompt_weights=prompts, **options)
        sizes[name] = sum(path.stat().st_size for path in out.iterdir())
        found[name] = quality(out, config, chunks, reference)
        print(line(name, sizes[name], found[name]), file=sys.stderr, flush=True)
    speed = speeds({name: work / name.replace(" ", "-") for name in args.plans}, args.rounds)
    print("| | bytes | perplexity | mean KL | p99 KL | same top token | speed |\n|---|---|---|---|---|---|---|")
    for name in args.plans:
        print(line(name, sizes[name], found[name], f"{speed[name]:.2f}"))
    for kind in args.peers:
        print(line(f"llama.cpp {kind}", *peer(args.peer_python, work, kind)), flush=True)


if __name__ == "__main__":
    main()
