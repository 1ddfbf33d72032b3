"""From weights to a published package: open, convert, validate, publish."""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from edgeai.architectures.config import DecoderConfig
from edgeai.architectures.registry import decoder_config, write_graph
from edgeai.build.adapters import merged
from edgeai.build.encoder.checkpoint import is_encoder
from edgeai.build.encoder.pipeline import build_encoder
from edgeai.build.forms import FORMS
from edgeai.build.kv_scales import TOKENS, write_int8_caches
from edgeai.build.leftovers import require_all_used
from edgeai.build.prompts import measure_prompts, write_prompts
from edgeai.build.quantize.calibration import calibration_segments
from edgeai.build.quantize.scheme import Job, as_asked
from edgeai.build.quantize.scratch import Scratch
from edgeai.build.samples import samples
from edgeai.build.size import other_bytes, require_size
from edgeai.build.storage import StoredTensors
from edgeai.build.target import Target, open_target, origin_of
from edgeai.build.thresholds import require_quality
from edgeai.build.validate import TEXT, measure
from edgeai.errors import InvalidInput
from edgeai.package.cpu_targets import GENERIC, CpuTarget
from edgeai.package.licence import licence_notice
from edgeai.package.manifest import (
    GRAPH_NAME,
    LICENCE_NAME,
    TEMPLATE_NAME,
    TOKENIZER_NAME,
    WEIGHTS_NAME,
    Architecture,
    EncoderQuality,
    Manifest,
    PromptDefaults,
    Quality,
    Quantization,
    TokenIds,
)
from edgeai.package.package import Package
from edgeai.package.store import Store
from edgeai.package.writer import PackageWriter
from edgeai.progress import Progress, silent
from edgeai.recipe import QuantizationPlan, Recipe
from edgeai.sources.folder import FolderSource
from edgeai.sources.weights import TokenizerFiles
from edgeai.text.tokenizer import Tokenizer

__all__ = [
    "BuildReport",
    "build_package",
    "origin_of",
    "peak_rss_bytes",
    "prompt_defaults",
    "token_ids",
]

VALIDATION_TOKENS = 256
AS_IT_COMES = QuantizationPlan(scheme="source")


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What a build made, and what it took."""

    package: Path
    name: str
    seconds: float
    peak_rss_bytes: int
    size_bytes: int
    quantization: Quantization
    quality: Quality | EncoderQuality
    prompt_kl: float | None = None  # nats per token: what weights for prompts, if there are any, change


def build_package(
    spec: str,
    *,
    out: Path | None = None,
    bits: int | None = None,
    quantization: QuantizationPlan | None = None,
    default: QuantizationPlan = AS_IT_COMES,
    cpus: CpuTarget = GENERIC,
    accept_licence: bool = False,
    source_samples: bool = False,
    context: int | None = None,
    adapter: Path | None = None,
    adapter_scale: float = 1.0,
    prompt_weights: bool = False,
    home: Path,
    cache: Path,
    progress: Progress = silent,
) -> BuildReport:
    """Build the package that `spec` names into `out`, or into the store under `home`.

    `quantization` stands in the place of the recipe's plan, `default` is for weights without a recipe; by itself it
    leaves all weights exactly as they are. `bits` (4 or 8) is short for rounding floats to the nearest.
    `context`: tokens the package is made for, by default the recipe's or the model's own; LongRoPE depends on it.
    `cpus`: the processors it is made for, which may decide how weights are stored; options and recipe then do not.
    `adapter` is a PEFT folder that is merged into the weights, times `adapter_scale`.
    `prompt_weights` adds a second set of weights, int8, that prompts are read with; no limit of size counts them.
    `source_samples` lets the source answer the card's questions too, which takes a few passes of numpy for each.
    Nothing appears at the target unless all of it succeeds. Raises `EdgeaiError` of many kinds.
    """
    started = time.perf_counter()
    target = open_target(spec, cache, progress, accept_licence=accept_licence)
    if isinstance(target.source, FolderSource) and is_encoder(target.source.config):
        if adapter or quantization or bits or prompt_weights or cpus != GENERIC:
            raise InvalidInput(
                "encoders take no adapter or weights for prompts, and are always built in int8, for all processors",
                "leave the options out",
            )
        package = build_encoder(
            target.source.path,
            out or Store(home).path_for(target.name),
            name=target.name,
            recipe=target.recipe,
            licence=target.licence,
            licence_accepted=target.licence_accepted,
            provenance=target.source.provenance,
            progress=progress,
        )
        return report_of(package, started)
    if bits is not None:
        quantization = QuantizationPlan(scheme="rtn", bits=bits)
    plan = quantization or (target.recipe.quantization if target.recipe else default)
    if context is None and target.recipe is not None:
        context = target.recipe.context
    if adapter is not None:
        target = merged(target, adapter, adapter_scale, plan.bits)
    if cpus.linear != "blocks":
        if quantization is not None:
            raise InvalidInput(f"target {cpus.name} decides how weights are stored", "leave --bits and the like out")
        if prompt_weights:
            raise InvalidInput(f"target {cpus.name} has int8 weights already", "leave --prompt-weights out")
        plan = QuantizationPlan(scheme="source", calibration=plan.calibration)
    with PackageWriter(out or Store(home).path_for(target.name, cpus.name)) as writer:
        asked = as_asked(plan, target.source)
        made = _write(writer, target, cpus, asked, context, source_samples, prompt_weights, cache, progress)
    package, prompt_kl = made
    return report_of(package, started, prompt_kl=prompt_kl)


def report_of(package: Package, started: float, peak: int | None = None, prompt_kl: float | None = None) -> BuildReport:
    """What was made, since `started` by the performance counter, in `peak` bytes or those of this process alone."""
    return BuildReport(
        package=package.path,
        name=package.name,
        seconds=round(time.perf_counter() - started, 3),
        peak_rss_bytes=peak_rss_bytes() if peak is None else peak,
        size_bytes=package.size_bytes,
        quantization=package.manifest.quantization,
        quality=package.manifest.measured,
        prompt_kl=prompt_kl,
    )


def _write(
    writer: PackageWriter,
    target: Target,
    cpus: CpuTarget,
    plan: QuantizationPlan,
    context: int | None,
    source_samples: bool,
    prompt_weights: bool,
    cache: Path,
    progress: Progress,
) -> tuple[Package, float | None]:
    """The package, and what `measure_prompts` says of it where it has weights for prompts."""
    source = target.source
    files = source.tokenizer()
    writer.write(TOKENIZER_NAME, files.tokenizer_json)
    if files.chat_template is not None:
        writer.write(TEMPLATE_NAME, files.chat_template.encode())
    writer.write(LICENCE_NAME, licence_notice(target.licence).encode())
    graph = writer.folder / GRAPH_NAME
    with Scratch(cache) as scratch:
        other = other_bytes(writer.size_bytes, source, decoder_config(source.config, context))
        job = Job(plan, source, decoder_config(source.config, context), files, progress, scratch, other)
        made = FORMS[cpus.linear].quantized(job)
        stored = StoredTensors(source, made, progress)
        config = write_graph(
            source.config,
            stored.load,
            graph,
            writer.folder / WEIGHTS_NAME,
            context=context,
            linear=FORMS[cpus.linear].builder,
        )
        require_all_used(source, stored.loaded)
        quantization, written = stored.quantization(), writer.size_bytes
        if prompt_weights:
            write_prompts(job, stored.load, graph)
        others = writer.size_bytes - written
        progress("measure the KV cache")
        write_int8_caches(graph, config, calibration_segments(files, TOKENS, plan.calibration))
        require_size(writer.size_bytes - others, plan)
        progress("validate")
        ids = _validation_ids(files, config)
        prompt_kl = measure_prompts(graph, config, ids) if prompt_weights else None
        quality = measure(
            graph,
            config,
            ids,
            original=source.load,
            stored=made.load,
            requantized=quantization.scheme != "source",
            limit=FORMS[cpus.linear].limit,
        )
    require_quality(quality, target.recipe, quantization.scheme, FORMS[cpus.linear].allowance)
    manifest = Manifest(
        name=target.name,
        target=cpus.name,
        description=target.recipe.description if target.recipe else "",
        files={},
        licence=target.licence,
        licence_accepted=target.licence_accepted,
        origin=origin_of(target.source.provenance),
        architecture=_architecture(config, stored.parameters),
        tokens=token_ids(files),
        quantization=quantization,
        quality=quality,
        samples=samples(graph, config, files, source.load, stored.parameters, progress, ask_source=source_samples),
        prompt=prompt_defaults(target.recipe, files),
    )
    return writer.publish(manifest), prompt_kl


def _validation_ids(files: TokenizerFiles, config: DecoderConfig) -> list[int]:
    tokenizer = Tokenizer(files.tokenizer_json.decode(), bos_token_id=files.bos_token_id)
    ids = tokenizer.encode(TEXT, add_bos=files.add_bos)
    return ids[: min(VALIDATION_TOKENS, config.context_length)]


def prompt_defaults(recipe: Recipe | None, files: TokenizerFiles) -> PromptDefaults:
    """The recipe's defaults; where it does not say, how the model's makers sample from it."""
    stated = recipe.prompt.model_dump(exclude_none=True) if recipe else {}
    return PromptDefaults.model_validate({**files.sampling, **stated})


def _architecture(config: DecoderConfig, parameters: int) -> Architecture:
    return Architecture(
        model_type=config.model_type,
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        num_layers=config.num_layers,
        num_heads=config.num_heads,
        num_kv_heads=config.num_kv_heads,
        head_size=config.head_size,
        context_length=config.context_length,
        parameters=parameters,
    )


def token_ids(files: TokenizerFiles) -> TokenIds:
    return TokenIds(
        eos=files.eos_token_ids,
        bos=files.bos_token_id,
        add_bos=files.add_bos,
        special_tokens=dict(files.special_tokens),
    )


def peak_rss_bytes(who: int = resource.RUSAGE_SELF) -> int:
    """Peak resident memory of this process, or of the largest child that has ended (RUSAGE_CHILDREN)."""
    peak = resource.getrusage(who).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
