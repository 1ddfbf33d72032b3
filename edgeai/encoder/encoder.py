"""An encoder ready to work: package, tokenizer and graph in one piece, one run after another in the calling thread."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray

from edgeai.device.profile import read_cpu, saturates_int8
from edgeai.encoder.batches import Limits, longest, plan_batches
from edgeai.encoder.pooling import normalized, pool
from edgeai.encoder.tokens import EncoderTokenizer, Tokens
from edgeai.errors import InvalidInput
from edgeai.onnx_session import OnnxSession
from edgeai.package.manifest import EncoderInfo, Manifest
from edgeai.package.package import Package

__all__ = ["Encoder", "EncoderGraph", "prompt_for", "require_encoder"]

Floats = NDArray[np.float32]

# The two sides of a search, by the names that models and other APIs have for them.
QUERY = ("query", "search_query", "retrieval.query")
PASSAGE = ("passage", "document", "search_document", "retrieval.passage")


class EncoderGraph:
    """The graph alone: sequences of token ids to hidden states or logits."""

    def __init__(self, path: Path, *, threads: int | None = None, limits: Limits | None = None) -> None:
        """Raises `PackageError` when the graph cannot be loaded."""
        self.threads = threads or psutil.cpu_count(logical=False) or 1
        self.limits = limits or Limits()
        self._session = OnnxSession(
            path, threads=self.threads, varied_shapes=True, exact_int8=saturates_int8(read_cpu())
        )
        self._inputs = self._session.input_names
        self._output = self._session.output_names[0]

    def run(self, sequences: Sequence[Tokens]) -> Floats:
        """Hidden states [rows, tokens, width] or logits [rows, 1] of sequences of one length."""
        ids = np.array([sequence.ids for sequence in sequences], np.int64)
        values = {
            "input_ids": ids,
            "attention_mask": np.ones_like(ids),
            "token_type_ids": np.array([sequence.types for sequence in sequences], np.int64),
        }
        (result,) = self._session.run([self._output], {name: values[name] for name in self._inputs})
        return result

    def batches(self, sequences: Sequence[Tokens]) -> list[list[int]]:
        """Positions of the sequences that run together, in the order of the runs."""
        return plan_batches([len(sequence) for sequence in sequences], self.limits)


class Encoder:
    """An embedding model or a reranker."""

    def __init__(self, package: Package, *, threads: int | None = None, limits: Limits | None = None) -> None:
        """Raises `PackageError` for a damaged package, `InvalidInput` for one that is no encoder."""
        self.package = package
        self.info = require_encoder(package.manifest)
        self.max_length = longest(package.manifest)
        self.tokenizer = EncoderTokenizer.load(package.tokenizer, self.max_length)
        self.graph = EncoderGraph(package.graph, threads=threads, limits=limits)

    @property
    def name(self) -> str:
        return self.package.name

    def embed(self, texts: Sequence[str], *, prompt: str | None = None, truncate: bool = False) -> Floats:
        """Vectors [texts, dimension]; `prompt` names one of the model's prompts, which is put before each text.

        Raises `InvalidInput` for a reranker or an unknown prompt, `ContextLengthExceeded` for texts that are too long.
        """
        require_kind(self.package.manifest, "embedding")
        start = prompt_for(self.info, prompt)
        return self.compute(self.tokenizer.encode([start + text for text in texts], truncate=truncate))

    def rerank(self, query: str, documents: Sequence[str], *, truncate: bool = True) -> Floats:
        """How relevant each document is to the query, 0 to 1 [documents]. Raises `InvalidInput` for other models."""
        require_kind(self.package.manifest, "reranker")
        logits = self.compute(self.tokenizer.encode_pairs(query, documents, truncate=truncate))
        return relevance(logits)

    def compute(self, sequences: Sequence[Tokens]) -> Floats:
        """Vectors [sequences, dimension], or logits [sequences, 1]; pooled and normalized as the manifest says."""
        results = np.zeros((len(sequences), self.info.dimension), np.float32)
        for batch in self.graph.batches(sequences):
            results[batch] = self.run([sequences[position] for position in batch])
        return results

    def run(self, sequences: Sequence[Tokens]) -> Floats:
        """As `compute`, in one run of sequences that are of one length."""
        result = self.graph.run(sequences)
        return finish(result, self.info)


def finish(result: Floats, info: EncoderInfo) -> Floats:
    """What follows the graph: pooling and normalization of hidden states; logits are left as they are."""
    if info.pooling is None:
        return result
    vectors = pool(result, info.pooling)
    return normalized(vectors) if info.normalize else vectors


def relevance(logits: Floats) -> Floats:
    """Scores between 0 and 1 [documents] of logits [documents, 1]: the sigmoid, which keeps their order."""
    clipped = np.clip(logits[:, 0].astype(np.float64), -500, 500)  # beyond is 0 or 1
    scores: Floats = (1 / (1 + np.exp(-clipped))).astype(np.float32)
    return scores


def prompt_for(info: EncoderInfo, name: str | None) -> str:
    """What is put before a text. Raises `InvalidInput` for a name that the model does not have.

    Models without any prompts take every usual name: they make no difference between queries and documents.
    """
    if name is None:
        return info.prompts[info.default_prompt] if info.default_prompt is not None else ""
    same = next((names for names in (QUERY, PASSAGE) if name in names), ())
    for known in (name, *same):
        if known in info.prompts:
            return info.prompts[known]
    if same and not info.prompts:
        return ""
    there = ", ".join(sorted(info.prompts)) or "none"
    raise InvalidInput(f"this model has no prompt {name!r}", f"there is {there}", param="input_type")


def require_encoder(manifest: Manifest) -> EncoderInfo:
    """The encoder's part of a manifest. Raises `InvalidInput` for a package that answers with text."""
    if manifest.encoder is None:
        raise InvalidInput(
            f"{manifest.name} is a language model, it makes no embeddings",
            "use an embedding model or a reranker",
            param="model",
        )
    return manifest.encoder


def require_kind(manifest: Manifest, kind: str) -> None:
    """Raises `InvalidInput` for a package of another kind than "embedding" or "reranker", whichever is wanted."""
    require_encoder(manifest)
    if manifest.kind != kind:
        use = {"embedding": "/v1/embeddings or `edgeai embed`", "reranker": "/v1/rerank or `edgeai rerank`"}
        article = {"embedding": "an embedding model", "reranker": "a reranker"}
        raise InvalidInput(
            f"{manifest.name} is {article[manifest.kind]}, not {article[kind]}", f"use {use[manifest.kind]}",
            param="model",
        )  # fmt: skip
