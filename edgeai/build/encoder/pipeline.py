"""From an encoder's folder to a published package: export, quantize, measure, publish."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeai.architectures.encoder_int8 import FloatGraph
from edgeai.build.encoder.checkpoint import EncoderCheckpoint, read_checkpoint
from edgeai.build.encoder.precision import agreement, choose_precise, near
from edgeai.build.optimum_export import require_exporter, run_exporter
from edgeai.build.target import origin_of
from edgeai.encoder.encoder import EncoderGraph, finish, relevance
from edgeai.encoder.tokens import EncoderTokenizer, Tokens
from edgeai.errors import ValidationFailed
from edgeai.package.licence import licence_notice
from edgeai.package.manifest import (
    GRAPH_NAME,
    LICENCE_NAME,
    TOKENIZER_NAME,
    WEIGHTS_NAME,
    Architecture,
    EncoderInfo,
    EncoderQuality,
    Manifest,
    Quantization,
    TokenIds,
)
from edgeai.package.package import Package
from edgeai.package.writer import PackageWriter
from edgeai.progress import Progress
from edgeai.recipe import EncoderPlan, Licence, QualityTarget, Recipe
from edgeai.sources.weights import Provenance

__all__ = ["build_encoder"]

Floats = NDArray[np.float32]

SENTENCES = Path(__file__).with_name("sentences.txt")
QUERY_CHARACTERS = 40  # of the build's queries, so that they fit the shortest models
FEW = 28  # sentences by which the harm of a single layer is measured
SAME = 1e-3  # how far the exported float graph may be from transformers, as 1 - cosine
REFERENCE = "transformers, float32"


@dataclass(frozen=True, slots=True)
class _Export:
    """What the exporter has made, in float."""

    checkpoint: EncoderCheckpoint
    graph: FloatGraph
    tokenizer: bytes
    sequences: list[Tokens]  # of the sentences, by our own tokenizer
    reference: Floats  # [sentences, dimension], transformers'
    parameters: int


def build_encoder(
    folder: Path,
    out: Path,
    *,
    name: str,
    recipe: Recipe | None,
    licence: Licence,
    provenance: Provenance,
    progress: Progress,
    licence_accepted: bool = False,
) -> Package:
    """Build the package of the encoder in `folder` at `out`.

    Nothing appears there unless all of it succeeds. Raises `UnsupportedModel`, `SourceError`, `ValidationFailed`.
    """
    checkpoint = read_checkpoint(folder, recipe.encoder if recipe else EncoderPlan())
    require_exporter()
    with PackageWriter(out) as writer, TemporaryDirectory(prefix="edgeai-encoder-") as work:
        export = _export(checkpoint, Path(work), progress)
        writer.write(TOKENIZER_NAME, export.tokenizer)
        writer.write(LICENCE_NAME, licence_notice(licence).encode())
        info, quantization = _quantize(writer.folder, export, progress)
        _require_quality(info.quality, name, recipe)
        manifest = Manifest(
            name=name,
            kind=checkpoint.kind,
            description=recipe.description if recipe else "",
            files={},
            licence=licence,
            licence_accepted=licence_accepted,
            origin=origin_of(provenance),
            architecture=_architecture(checkpoint, export.parameters),
            tokens=TokenIds(eos=()),
            quantization=quantization,
            encoder=info,
        )
        return writer.publish(manifest)


def _export(checkpoint: EncoderCheckpoint, work: Path, progress: Progress) -> _Export:
    """Let the child process export, and check its float graph and our tokenizer against transformers."""
    progress("export")
    texts = _texts(checkpoint)
    request = {"folder": str(checkpoint.folder.absolute()), "out": str(work), "texts": texts}
    scores = checkpoint.kind == "reranker"
    result = run_exporter("encoder", {**request, "max_length": checkpoint.max_length, "scores": scores})
    document = (work / "tokenizer.json").read_bytes()
    sequences = _encode(EncoderTokenizer(document.decode(), checkpoint.max_length), texts)
    with np.load(work / "reference.npz") as saved:
        for number, sequence in enumerate(sequences):
            if list(sequence.ids) != saved[f"ids.{number}"].tolist():
                raise ValidationFailed(f"the tokenizer disagrees with transformers' on {texts[number]!r}")
        results = [saved[f"result.{number}"][None] for number in range(len(sequences))]
    info = _info(checkpoint)
    reference = np.concatenate([finish(result, info) for result in results])
    graph = FloatGraph(work / "float.onnx")
    found = agreement(_compute(EncoderGraph(graph.path), sequences, info), reference)
    if not 1 - found.least <= SAME:
        raise ValidationFailed(
            f"the exported graph is not the model: its least cosine to transformers' results is {found.least:.5f}",
            "report this with the model's name",
        )
    return _Export(checkpoint, graph, document, sequences, reference, int(result["parameters"]))


def _quantize(folder: Path, export: _Export, progress: Progress) -> tuple[EncoderInfo, Quantization]:
    """Write the int8 graph into `folder` and measure it."""
    info = _info(export.checkpoint)
    precise = choose_precise(
        export.graph, export.sequences, FEW, export.reference, lambda graph, s: _compute(graph, s, info), progress
    )
    encodings = export.graph.write(folder / GRAPH_NAME, WEIGHTS_NAME, precise)
    progress("validate")
    results = _compute(EncoderGraph(folder / GRAPH_NAME), export.sequences, info)
    found = agreement(results, export.reference)
    difference = None
    if info.pooling is None:
        difference = float(np.abs(relevance(results) - relevance(export.reference)).max())
    quality = EncoderQuality(
        reference=REFERENCE,
        texts=len(export.sequences),
        mean_cosine=near(found.mean),
        min_cosine=near(found.least),
        max_score_difference=difference,
    )
    bits = (folder / WEIGHTS_NAME).stat().st_size * 8 / export.parameters
    quantization = Quantization(scheme="int8-dynamic", bits_per_weight=round(bits, 4), tensor_types=encodings)
    return info.model_copy(update={"precise_layers": precise, "quality": quality}), quantization


def _texts(checkpoint: EncoderCheckpoint) -> list[Any]:
    """The build's sentences, with each of the prompts in turn; for a reranker each with the one after it."""
    sentences = SENTENCES.read_text(encoding="utf-8").splitlines()
    if checkpoint.kind == "reranker":
        return [[first[:QUERY_CHARACTERS], second] for first, second in pairwise(sentences)]
    prompts = ["", *checkpoint.prompts.values()]
    return [prompts[number % len(prompts)] + text for number, text in enumerate(sentences)]


def _encode(tokenizer: EncoderTokenizer, texts: Sequence[Any]) -> list[Tokens]:
    if isinstance(texts[0], str):
        return tokenizer.encode(texts, truncate=True)
    return [tokenizer.encode_pairs(first, [second])[0] for first, second in texts]


def _compute(graph: EncoderGraph, sequences: Sequence[Tokens], info: EncoderInfo) -> Floats:
    results = np.zeros((len(sequences), info.dimension), np.float32)
    for batch in graph.batches(sequences):
        results[batch] = finish(graph.run([sequences[position] for position in batch]), info)
    return results


def _info(checkpoint: EncoderCheckpoint) -> EncoderInfo:
    """The manifest's part without what is measured later."""
    return EncoderInfo(
        dimension=checkpoint.dimension,
        max_length=checkpoint.max_length,
        pooling=checkpoint.pooling,
        normalize=checkpoint.normalize,
        prompts=dict(checkpoint.prompts),
        default_prompt=checkpoint.default_prompt,
        quality=EncoderQuality(reference=REFERENCE, texts=0, mean_cosine=0, min_cosine=0),
    )


def _require_quality(quality: EncoderQuality, name: str, recipe: Recipe | None) -> None:
    target = (recipe.quality if recipe else QualityTarget()).min_cosine
    if not quality.mean_cosine >= target:
        raise ValidationFailed(
            f"{name} has a mean cosine of {quality.mean_cosine} to its float model; {target} is asked for."
            " Nothing was published",
            "change the recipe's min_cosine if that is good enough",
        )


def _architecture(checkpoint: EncoderCheckpoint, parameters: int) -> Architecture:
    config = checkpoint.config
    heads, hidden = int(config["num_attention_heads"]), int(config["hidden_size"])
    return Architecture(
        model_type=config["model_type"],
        vocab_size=config["vocab_size"],
        hidden_size=hidden,
        num_layers=config["num_hidden_layers"],
        num_heads=heads,
        num_kv_heads=heads,
        head_size=hidden // heads,
        context_length=checkpoint.max_length,
        parameters=parameters,
    )
