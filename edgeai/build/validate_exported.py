"""Runs an exported graph as an engine does, the plain way: what it gives as present goes in as past again.

An export is a trace of one call. Whatever depended on the lengths of that call is frozen in it, so that it is only
trusted after it gave the model's own logits for chunks, single tokens, and rows of different lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeai.architectures.exported import CacheShape
from edgeai.build.validate import Logits, chunked
from edgeai.errors import UnsupportedModel
from edgeai.onnx_session import OnnxSession

LIMIT = 1e-3  # of a float32 export to transformers, relative to the largest logit
Caches = dict[str, NDArray[np.float32]]


class ExportedSession:
    """An exported graph with its caches held outside."""

    def __init__(self, graph: Path, cache: CacheShape) -> None:
        self._session = OnnxSession(graph, threads=2)
        self._names = [f"{layer}.{part}" for layer in range(cache.num_layers) for part in ("key", "value")]
        self._cache = cache
        self._inputs = set(self._session.input_names)

    def empty(self) -> Caches:
        shape = (1, self._cache.num_kv_heads, 0, self._cache.head_size)
        return {name: np.zeros(shape, np.float32) for name in self._names}

    def run(self, ids: NDArray[np.int64], past: Caches, mask: NDArray[np.int64]) -> tuple[Logits, Caches]:
        """New ids [rows, new] behind `past`; `mask` [rows, past + new] is 0 for padding. Positions count the mask."""
        inputs: dict[str, NDArray[Any]] = {
            "input_ids": ids,
            "attention_mask": mask,
            "position_ids": np.maximum(mask.cumsum(axis=1) - 1, 0)[:, -ids.shape[1] :],
            "logits_from": np.zeros(1, np.int64),
            **{f"past_key_values.{name}": values for name, values in past.items()},
        }
        wanted = ["logits", *(f"present.{name}" for name in self._names)]
        logits, *present = self._session.run(wanted, {k: v for k, v in inputs.items() if k in self._inputs})
        return logits, dict(zip(self._names, present, strict=True))

    def steps(self, ids: Sequence[int], sizes: Sequence[int]) -> tuple[Logits, Caches]:
        """Logits [tokens, vocab_size] of one row given in runs of `sizes`, and what it leaves in the cache."""
        past, parts, done = self.empty(), [], 0
        for size in sizes:
            new = np.array([ids[done : done + size]], np.int64)
            logits, past = self.run(new, past, np.ones((1, done + size), np.int64))
            parts.append(logits[0])
            done += size
        return np.concatenate(parts), past


def run_exported(graph: Path, cache: CacheShape, ids: Sequence[int]) -> Logits:
    """Logits [tokens, vocab_size] in two chunks and single tokens."""
    return ExportedSession(graph, cache).steps(ids, chunked(len(ids)))[0]


def require_faithful(graph: Path, cache: CacheShape, ids: Sequence[int], reference: Logits) -> bool:
    """Raises `UnsupportedModel` for an export that does not give `reference` [tokens, vocab_size] at every length.

    Returns whether rows of different lengths may be padded to run together: exports without position ids may count the
    padding as positions.
    """
    session = ExportedSession(graph, cache)
    limit = LIMIT * max(1.0, float(np.abs(reference).max()))
    for what, sizes in (("a whole text", [len(ids)]), ("a text in chunks and single tokens", chunked(len(ids)))):
        _require_close(session.steps(ids, sizes)[0], reference, limit, what)
    _require_close(*even_decode(session, ids), limit, "one of two rows")
    logits, expected = padded_decode(session, ids, reference)
    return bool(np.abs(logits - expected).max() <= limit)


def even_decode(session: ExportedSession, ids: Sequence[int]) -> tuple[Logits, Logits]:
    """One token each for two different rows of one length: logits, and what each gives alone."""
    half = len(ids) // 2
    rows = [ids[:half], ids[half : 2 * half]]
    pasts = [session.steps(row, [half - 1])[1] for row in rows]
    past = {name: np.concatenate([past[name] for past in pasts]) for name in pasts[0]}
    logits, _ = session.run(np.array([[row[-1]] for row in rows], np.int64), past, np.ones((2, half), np.int64))
    return logits[:, 0], np.stack([session.steps(row, [half])[0][-1] for row in rows])


def padded_decode(session: ExportedSession, ids: Sequence[int], reference: Logits) -> tuple[Logits, Logits]:
    """One token each for a long and a short row, the short one padded on the left: logits, and what they should be."""
    long, short = len(ids) - 1, max(1, len(ids) // 3)
    pasts = [session.steps(ids, [length])[1] for length in (long, short)]
    padding = ((0, 0), (0, 0), (long - short, 0), (0, 0))
    past = {name: np.concatenate([pasts[0][name], np.pad(pasts[1][name], padding)]) for name in pasts[0]}
    mask = np.ones((2, long + 1), np.int64)
    mask[1, : long - short] = 0
    logits, _ = session.run(np.array([[ids[long]], [ids[short]]], np.int64), past, mask)
    return logits[:, 0], reference[[long, short]]


def _require_close(logits: Logits, reference: Logits, limit: float, what: str) -> None:
    difference = float(np.abs(logits - reference).max())
    if not difference <= limit:  # written so that NaN fails
        raise UnsupportedModel(
            f"optimum's export does not compute what the model does: {what} is {difference:.3g} away from transformers'"
            f" logits, more than {limit:.3g}",
            "this kind of model cannot be exported as it is; choose another",
        )
