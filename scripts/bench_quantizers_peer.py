"""llama.cpp's side of bench_quantizers: `bench_quantizers_peer.py float.gguf TYPE out.gguf ids.npy reference.npy`.

Quantizes the float file to TYPE (no importance matrix) and prints mean and 99th percentile of the KL divergence,
same-top-token share and perplexity as JSON. Runs in an interpreter that has llama_cpp.
"""

from __future__ import annotations

import ctypes
import json
import sys

import llama_cpp
import numpy as np

TYPES = {"Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q4_K_S": 14, "Q4_K_M": 15, "Q5_K_M": 17, "IQ4_XS": 30}


def quantize(source: str, kind: str, target: str) -> None:
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.nthread = TYPES[kind], 1
    if llama_cpp.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(params)):
        raise SystemExit(f"llama.cpp could not quantize to {kind}")


def main(source: str, kind: str, target: str, ids_path: str, reference_path: str) -> None:
    quantize(source, kind, target)
    chunks, reference = np.load(ids_path), np.load(reference_path, mmap_mode="r")
    length = chunks.shape[1]
    model = llama_cpp.Llama(target, n_ctx=length, n_threads=1, n_batch=length, logits_all=True, verbose=False)
    kl, losses, same = [], [], []
    for chunk, expected in zip(chunks, reference, strict=True):
        model.reset()
        model.eval(chunk.tolist())
        for row, wanted in enumerate(expected):
            at = length // 2 + row
            actual, wanted = (log_softmax(values) for values in (model.scores[at], wanted))
            kl.append(float((np.exp(wanted) * (wanted - actual)).sum()))
            losses.append(-float(actual[chunk[at + 1]]))
            same.append(int(actual.argmax()) == int(wanted.argmax()))
    numbers = {"kl": np.mean(kl), "p99": np.quantile(kl, 0.99), "same": np.mean(same), "ppl": np.exp(np.mean(losses))}
    print(json.dumps({name: float(value) for name, value in numbers.items()}))


def log_softmax(values: np.ndarray) -> np.ndarray:
    wide = values.astype(np.float64) - values.max()
    return wide - np.log(np.exp(wide).sum())


if __name__ == "__main__":
    main(*sys.argv[1:])
