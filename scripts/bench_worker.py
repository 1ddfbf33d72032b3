"""One contestant of scripts/bench, in a process of its own: reads a task a line, answers with tokens per second.

    bench_worker.py edgeai PACKAGE THREADS
    bench_worker.py llama.cpp GGUF THREADS STEPS

The first line says what it is (`version`), once it is ready. A task is a JSON list [name, argument, seed]; the answer a
JSON object with `value`. STEPS is how many tokens are decoded, as many as edgeai's own measurement does; llama.cpp's
interpreter need not have edgeai.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from edgeai.engine.config import KVType
    from edgeai.engine.engine import Engine

Task = Callable[[int, int], float]


def edgeai_tasks(package_path: Path, threads: int) -> Mapping[str, Task]:
    """Our engine, through its own step loop, with the prefix cache in place and memory as the server has it.

    A cache of floats for prompts and one of int8 for decoding: each is the faster one there, and a setting
    (`--kv-type`). Without drafts: the peer has none here, and what a draft is worth depends on the text
    (bench_speculation).
    """
    from machine_limits import int8_multiply_rate, read_bandwidth

    from edgeai.device.huge_pages import collapse
    from edgeai.measure.throughput import decode_speed, prefill_speed
    from edgeai.model import Model, default_settings
    from edgeai.package.package import Package

    package = Package.open(package_path)

    def load(kv_type: KVType) -> Engine:
        settings = default_settings(package.manifest, threads=threads, draft_tokens=0, kv_type=kv_type)
        engine = Model.load(package, settings).engine
        engine.runner.complete()
        return engine

    reading, decoding = load("float32"), load("int8")
    collapse()
    return {
        "bandwidth": lambda _, __: read_bandwidth(threads),
        "multiply": lambda _, __: int8_multiply_rate(threads),
        "prefill": lambda tokens, seed: prefill_speed(reading, tokens, seed=seed),
        "decode": lambda context, seed: decode_speed(decoding, context, seed=seed),
        "batch": lambda rows, seed: decode_speed(decoding, 128, rows=rows, seed=seed),
    }


class LlamaCpp:
    """llama.cpp through its C interface. With flash attention or without, as the task of that name says."""

    def __init__(self, gguf: Path, threads: int, steps: int) -> None:
        import llama_cpp

        self.api = llama_cpp
        llama_cpp.llama_backend_init()
        self._quiet = llama_cpp.llama_log_callback(lambda *_: None)
        llama_cpp.llama_log_set(self._quiet, None)
        self.model = llama_cpp.llama_model_load_from_file(str(gguf).encode(), llama_cpp.llama_model_default_params())
        self.threads, self.steps = threads, steps
        self.flash_attention = llama_cpp.LLAMA_FLASH_ATTN_TYPE_AUTO
        self.context = None
        self.vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.batch = llama_cpp.llama_batch_init(512, 0, 1)

    def tasks(self) -> Mapping[str, Task]:
        return {
            "flash attention": self.use_flash_attention,
            "prefill": self.prefill,
            "decode": lambda context, seed: self.decode(context, 1, seed),
            "batch": lambda rows, seed: self.decode(128, rows, seed),
        }

    def use_flash_attention(self, wanted: int, _: int) -> float:
        """From the next task on."""
        api = self.api
        self.flash_attention = api.LLAMA_FLASH_ATTN_TYPE_ENABLED if wanted else api.LLAMA_FLASH_ATTN_TYPE_DISABLED
        return wanted

    def prefill(self, tokens: int, seed: int) -> float:
        self.open(rows=1, capacity=tokens)
        started = time.perf_counter()
        self.read(0, self.prompt(tokens, seed))
        self.choose(-1)
        return tokens / (time.perf_counter() - started)

    def decode(self, context: int, rows: int, seed: int) -> float:
        self.open(rows, context + self.steps)
        newest = []
        for row in range(rows):
            self.read(row, self.prompt(context, seed + row))
            newest.append(self.choose(-1))
        times = []
        for step in range(self.steps):
            started = time.perf_counter()
            self.run([(token, context + step, row, True) for row, token in enumerate(newest)])
            newest = [self.choose(row) for row in range(rows)]
            times.append(time.perf_counter() - started)
        return rows / statistics.median(times)

    def prompt(self, length: int, seed: int) -> list[int]:
        return [int(token) for token in np.random.default_rng(seed).integers(3, self.vocab, length)]

    def open(self, rows: int, capacity: int) -> None:
        """A fresh context that fits the task: sequences with a cache of their own are its fastest arrangement."""
        if self.context is not None:
            self.api.llama_free(self.context)
        params = self.api.llama_context_default_params()
        params.n_ctx = rows * (capacity + 63) // 64 * 64 + rows * 64
        params.n_seq_max = rows
        params.n_batch = params.n_ubatch = 512
        params.n_threads = params.n_threads_batch = self.threads
        params.flash_attn_type = self.flash_attention
        self.context = self.api.llama_init_from_model(self.model, params)
        if not self.context:
            raise RuntimeError(f"llama.cpp makes no context with flash_attn_type {self.flash_attention}")

    def read(self, row: int, prompt: list[int]) -> None:
        last = len(prompt) - 1
        for start in range(0, len(prompt), 512):
            piece = prompt[start : start + 512]
            self.run([(token, start + i, row, start + i == last) for i, token in enumerate(piece)])

    def run(self, tokens: list[tuple[int, int, int, bool]]) -> None:
        batch = self.batch
        batch.n_tokens = len(tokens)
        for i, (token, position, row, wanted) in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.logits[i] = token, position, wanted
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = row
        if self.api.llama_decode(self.context, batch) != 0:
            raise RuntimeError("llama_decode failed")

    def choose(self, index: int) -> int:
        """Greedy choice, with numpy as the other side does it."""
        logits = self.api.llama_get_logits_ith(self.context, index)
        return int(np.ctypeslib.as_array(logits, (self.vocab,)).argmax())


def main() -> None:
    kind, path, threads = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    if kind == "edgeai":
        tasks, version = edgeai_tasks(path, threads), ""
    else:
        peer = LlamaCpp(path, threads, steps=int(sys.argv[4]))
        tasks, version = peer.tasks(), f"llama-cpp-python {peer.api.__version__}"
    reply({"version": version})
    for line in sys.stdin:
        name, argument, seed = json.loads(line)
        reply({"value": tasks[name](argument, seed)})


def reply(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
