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
QUIET = llama_cpp.llama_log_callback(lambda _level, _text, _data: None)


def quantize(source: str, kind: str, target: str) -> None:
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.nthread = TYPES[kind], 1
    if llama_cpp.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(params)):
        raise SystemExit(f"llama.cpp could not quantize to {kind}")


class Reader:
    """A model that reads chunks of `length` tokens, each from an empty cache."""

    def __init__(self, path: str, length: int) -> None:
        self.length = length
        params = llama_cpp.llama_model_default_params()
        params.use_extra_bufts = False  # repacked weights are faster, and crash on processors whose AMX is locked
        self._model = llama_cpp.llama_model_load_from_file(path.encode(), params)
        self._vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))
        self._batch = llama_cpp.llama_batch_init(length, 0, 1)

    def logits(self, tokens: list[int], start: int) -> np.ndarray:
        """Logits [length - 1 - start, vocabulary] of the positions from `start` to the last but one."""
        options = llama_cpp.llama_context_default_params()
        options.n_ctx = options.n_batch = options.n_ubatch = self.length
        options.n_threads = options.n_threads_batch = 1
        state = llama_cpp.llama_init_from_model(self._model, options)
        batch = self._batch
        batch.n_tokens = self.length
        for index, token in enumerate(tokens):
            batch.token[index], batch.pos[index], batch.logits[index] = token, index, index >= start
            batch.n_seq_id[index], batch.seq_id[index][0] = 1, 0
        if llama_cpp.llama_decode(state, batch):
            raise SystemExit("llama.cpp does not run the file")
        wanted = range(start, self.length - 1)
        rows = [np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(state, i), (self._vocab,)).copy() for i in wanted]
        llama_cpp.llama_free(state)
        return np.array(rows)


def main(source: str, kind: str, target: str, ids_path: str, reference_path: str) -> None:
    llama_cpp.llama_log_set(QUIET, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    quantize(source, kind, target)
    chunks, reference = np.load(ids_path), np.load(reference_path, mmap_mode="r")
    length = chunks.shape[1]
    reader = Reader(target, length)
    kl, losses, same = [], [], []
    for chunk, expected in zip(chunks, reference, strict=True):
        found = reader.logits(chunk.tolist(), length // 2)
        for row in range(len(expected)):
            actual, wanted = log_softmax(found[row]), log_softmax(expected[row])
            kl.append(float((np.exp(wanted) * (wanted - actual)).sum()))
            losses.append(-float(actual[chunk[length // 2 + row + 1]]))
            same.append(int(actual.argmax()) == int(wanted.argmax()))
    numbers = {"kl": np.mean(kl), "p99": np.quantile(kl, 0.99), "same": np.mean(same), "ppl": np.exp(np.mean(losses))}
    print(json.dumps({name: float(value) for name, value in numbers.items()}))


def log_softmax(values: np.ndarray) -> np.ndarray:
    wide = values.astype(np.float64) - values.max()
    return wide - np.log(np.exp(wide).sum())


if __name__ == "__main__":
    main(*sys.argv[1:])
