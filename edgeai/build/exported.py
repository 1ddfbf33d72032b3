"""`edgeai build --exporter optimum`: a package of a model that edgeai has no architecture for.

optimum exports the graph in a child process, where transformers computes its own logits as well. The export is run as
an engine runs it (chunks, single tokens, several rows) and has to give those logits. Then its matrices are rounded, if
that was asked for, and what comes out is measured against the same logits.
"""

from __future__ import annotations

import resource
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeai.architectures.exported import CacheShape, ExportedGraph, convert, read_cache
from edgeai.build.optimum_export import require_exporter, run_exporter
from edgeai.build.pipeline import (
    VALIDATION_TOKENS,
    BuildReport,
    peak_rss_bytes,
    prompt_defaults,
    report_of,
    token_ids,
)
from edgeai.build.quantize.rounding import quantize
from edgeai.build.target import Target, open_target, origin_of
from edgeai.build.thresholds import require_quality
from edgeai.build.validate import TEXT, Logits, compare
from edgeai.build.validate_exported import require_faithful, run_exported
from edgeai.errors import InvalidInput, SourceError, ValidationFailed
from edgeai.package.licence import licence_notice
from edgeai.package.manifest import (
    GRAPH_NAME,
    LICENCE_NAME,
    TEMPLATE_NAME,
    TOKENIZER_NAME,
    WEIGHTS_NAME,
    Architecture,
    Manifest,
    Quality,
    Quantization,
)
from edgeai.package.package import Package
from edgeai.package.store import Store
from edgeai.package.writer import PackageWriter
from edgeai.progress import Progress, silent
from edgeai.recipe import QuantizationPlan
from edgeai.sources.folder import FolderSource
from edgeai.sources.weights import BlockTensor, FloatTensor, Tensor, TokenizerFiles
from edgeai.text.tokenizer import Tokenizer

TASK = "text-generation"
REFERENCE = "transformers' float32 logits"


def build_exported(
    spec: str,
    *,
    out: Path | None = None,
    bits: int | None = None,
    accept_licence: bool = False,
    context: int | None = None,
    adapter: Path | None = None,
    adapter_scale: float = 1.0,  # noqa: ARG001
    source_samples: bool = False,
    home: Path,
    cache: Path,
    progress: Progress = silent,
) -> BuildReport:
    """Export what `spec` names into `out`, or the store under `home`; `bits` rounds its matrices, `context` cuts it.

    Nothing appears at the target unless all of it succeeds. Raises `EdgeaiError` without the extra `export`,
    `UnsupportedModel` for what optimum or the engine cannot do, and as `build_package` does.
    """
    started = time.perf_counter()
    if adapter is not None:
        raise InvalidInput("an adapter cannot be merged into an export", "merge it into the checkpoint before")
    if source_samples:
        raise InvalidInput("sample answers are made by edgeai's own exporter only", "build it without --samples")
    require_exporter()
    target = open_target(spec, cache, progress, accept_licence=accept_licence)
    if not isinstance(target.source, FolderSource):
        raise SourceError(
            f"optimum exports Hugging Face checkpoints, which {spec} is not", "build it without --exporter"
        )
    if bits is None and target.recipe is not None:
        bits = rounded_bits(target.recipe.quantization)
    with PackageWriter(out or Store(home).path_for(target.name)) as writer:
        package = _write(writer, target, target.source, bits, context, progress)
    return report_of(package, started, max(peak_rss_bytes(), peak_rss_bytes(resource.RUSAGE_CHILDREN)))


def _write(
    writer: PackageWriter,
    target: Target,
    source: FolderSource,
    bits: int | None,
    context: int | None,
    progress: Progress,
) -> Package:
    files = source.tokenizer()
    writer.write(TOKENIZER_NAME, files.tokenizer_json)
    if files.chat_template is not None:
        writer.write(TEMPLATE_NAME, files.chat_template.encode())
    writer.write(LICENCE_NAME, licence_notice(target.licence).encode())
    stored = RoundedMatrices(bits)
    # Beside the package, not in /tmp: an export is large, and /tmp is memory on many boards.
    with tempfile.TemporaryDirectory(dir=writer.folder) as scratch:
        progress("export")
        request = {"folder": str(source.path.absolute()), "out": scratch, "ids": _validation_ids(files)}
        exported = run_exporter(TASK, request)
        if context is not None:
            exported["context_length"] = shortened(context, exported["context_length"])
        graph, reference = ExportedGraph(Path(scratch, "model.onnx")), np.load(Path(scratch, "logits.npy"))
        cache, ids = read_cache(graph), exported["ids"]
        progress("validate")
        padded = require_faithful(Path(scratch, "model.onnx"), cache, ids, reference)
        progress("convert")
        convert(graph, stored.store, writer.folder / GRAPH_NAME, writer.folder / WEIGHTS_NAME)
    progress("measure")
    quality = _measure(writer.folder / GRAPH_NAME, cache, ids, reference)
    quantization = stored.quantization(writer.folder / WEIGHTS_NAME, exported["parameters"])
    require_quality(quality, target.recipe, quantization.scheme)
    manifest = Manifest(
        name=target.name,
        description=target.recipe.description if target.recipe else "",
        files={},
        licence=target.licence,
        licence_accepted=target.licence_accepted,
        origin=origin_of(target.source.provenance),
        runtime="exported" if padded else "exported-unpadded",
        architecture=_architecture(exported, cache),
        tokens=token_ids(files),
        quantization=quantization,
        quality=quality,
        prompt=prompt_defaults(target.recipe, files),
    )
    return writer.publish(manifest)


def rounded_bits(plan: QuantizationPlan) -> int | None:
    """Bits that an export can be rounded to: there is no mixture. Raises `InvalidInput` for what it cannot do."""
    if plan.max_size is not None or plan.scheme == "gptq" or plan.bits not in (None, 4, 8):
        raise InvalidInput(
            "an export through optimum can only be rounded to the nearest, to 4 or to 8 bits",
            "ask for --scheme rtn with --bits 4 or --bits 8",
            param="quantization",
        )
    return None if plan.bits is None else int(plan.bits)


def shortened(context: int, longest: int) -> int:
    """The context that was asked for. Raises `InvalidInput` where the export is not good for as many tokens."""
    if context > longest:
        raise InvalidInput(
            f"a context of {context} tokens is not possible, the export is good for {longest}",
            f"ask for at most {longest}",
            param="context",
        )
    return context


def _validation_ids(files: TokenizerFiles) -> list[int]:
    tokenizer = Tokenizer(files.tokenizer_json.decode(), bos_token_id=files.bos_token_id)
    return tokenizer.encode(TEXT, add_bos=files.add_bos)[:VALIDATION_TOKENS]


class RoundedMatrices:
    """Matrices of an export in the form they are stored in; keeps count for the manifest."""

    def __init__(self, bits: int | None) -> None:
        self._bits = bits
        self._kinds: Counter[str] = Counter()

    def store(self, name: str, matrix: FloatTensor) -> Tensor:
        tensor = quantize(name, matrix, self._bits)
        self._kinds[f"RTN{tensor.bits}" if isinstance(tensor, BlockTensor) else "F32"] += 1
        return tensor

    def quantization(self, weights: Path, parameters: int) -> Quantization:
        """What the manifest says about it; bits per weight count the whole weights file."""
        return Quantization(
            scheme="source" if self._kinds.keys() <= {"F32"} else "rtn",
            bits_per_weight=round(weights.stat().st_size * 8 / parameters, 4),
            tensor_types=dict(sorted(self._kinds.items())),
        )


def _measure(graph: Path, cache: CacheShape, ids: Sequence[int], reference: Logits) -> Quality:
    found = compare(reference, run_exported(graph, cache, ids), ids)
    if not np.isfinite(found.mean_kl):
        raise ValidationFailed("the package's logits are not finite; nothing was published", "use more bits")
    return found.quality(REFERENCE, len(ids))


def _architecture(exported: Mapping[str, Any], cache: CacheShape) -> Architecture:
    return Architecture(
        model_type=exported["model_type"],
        vocab_size=exported["vocab_size"],
        hidden_size=exported["hidden_size"],
        num_layers=cache.num_layers,
        num_heads=exported["num_heads"],
        num_kv_heads=cache.num_kv_heads,
        head_size=cache.head_size,
        context_length=exported["context_length"],
        parameters=exported["parameters"],
    )
