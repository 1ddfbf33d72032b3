"""`edgeai build`: weights to a package."""

from __future__ import annotations

from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from edgeai.cli.output import AcceptLicence, JsonFlag, emit, progress_display, say
from edgeai.cli.warm import describe, read, say_warm, warm_up
from edgeai.errors import EdgeaiError, InvalidInput

if TYPE_CHECKING:
    from edgeai.package.manifest import EncoderQuality, Quality, Quantization
    from edgeai.recipe import QuantizationPlan

Scheme = Literal["auto", "source", "rtn", "gptq"]


def build(
    target: Annotated[
        str, typer.Argument(metavar="RECIPE|GGUF|DIR|hub:OWNER/NAME", help="A recipe's name or file, or weights.")
    ],
    out: Annotated[Path | None, typer.Option(help="Folder for the package, instead of installing it.")] = None,
    bits: Annotated[
        float | None, typer.Option(help="Bits of an average weight, 4 to 8, for weights that come as floats.")
    ] = None,
    max_size: Annotated[str | None, typer.Option(help="Size of the whole package instead of bits: 105MB.")] = None,
    block_size: Annotated[
        int | None, typer.Option(help="Most values that share a scale: 32, or 64 or 128, faster and less exact.")
    ] = None,
    table_bits: Annotated[
        int | None, typer.Option(help="Bits of the token table and the head beside --bits 4 or 8; 8 unless told.")
    ] = None,
    scheme: Annotated[
        Scheme | None, typer.Option(help="How floats are rounded; by default gptq, and what lies on a grid stays.")
    ] = None,
    calibration: Annotated[Path | None, typer.Option(help="A text of your own to calibrate gptq with.")] = None,
    requantize: Annotated[bool, typer.Option(help="Round again what lies on a grid already, which loses.")] = False,
    accept_licence: AcceptLicence = False,
    context: Annotated[
        int | None, typer.Option(min=1, help="Tokens the package is made for, instead of the model's own number.")
    ] = None,
    adapter: Annotated[
        Path | None, typer.Option(help="Folder of a PEFT LoRA adapter to merge into the weights.")
    ] = None,
    adapter_scale: Annotated[float, typer.Option(help="How much of the adapter to add; 1 is as it was trained.")] = 1.0,
    prompt_weights: Annotated[
        bool,
        typer.Option("--prompt-weights", help="Add int8 weights for reading prompts: faster there, and more memory."),
    ] = False,
    samples: Annotated[
        bool, typer.Option("--samples", help="Let the source answer the quality card's questions too; takes minutes.")
    ] = False,
    warm: Annotated[
        list[Path] | None,
        typer.Option(help="A file with a system prompt that the package brings along computed; several times."),
    ] = None,
    exporter: Annotated[
        Literal["edgeai", "optimum"],
        typer.Option(help="optimum: the fallback for other architectures, from a Hugging Face folder; slower."),
    ] = "edgeai",
    for_cpu: Annotated[
        str, typer.Option("--target", help="Processors it is for: generic, or cortex-a72 (Raspberry Pi 3 and 4).")
    ] = "generic",
    json: JsonFlag = False,
) -> None:
    """Make a model package and install it."""
    _require_build_half()
    from edgeai.build.exported import build_exported, rounded_bits
    from edgeai.build.pipeline import build_package
    from edgeai.config import cache_dir, home_dir
    from edgeai.package.cpu_targets import GENERIC, cpu_target
    from edgeai.package.package import Package
    from edgeai.recipe import QuantizationPlan

    prompts = read(warm) if warm else []  # what is wrong with them is told before the work, not after it
    plan = _plan(
        scheme,
        bits=bits,
        max_size=max_size,
        block_size=block_size,
        table_bits=table_bits,
        calibration=calibration,
        requantize=requantize,
    )
    options: dict[str, Any] = {
        "out": out,
        "accept_licence": accept_licence,
        "context": context,
        "adapter": adapter,
        "adapter_scale": adapter_scale,
        "source_samples": samples,
        "home": home_dir(),
        "cache": cache_dir(),
    }
    with progress_display() as progress:
        cpus = cpu_target(for_cpu)
        if exporter == "optimum":
            if prompt_weights:
                raise InvalidInput("optimum's exports have no weights for prompts", "leave --prompt-weights out")
            if cpus != GENERIC:
                raise InvalidInput(f"optimum's exports are not made for target {cpus.name}", "leave --target out")
            whole = rounded_bits(plan) if plan else None
            report = build_exported(target, bits=whole, progress=progress, **options)
        else:
            default = QuantizationPlan(scheme="auto")
            options |= {"quantization": plan, "default": default, "cpus": cpus, "prompt_weights": prompt_weights}
            report = build_package(target, progress=progress, **options)
    package = Package.open(report.package)
    if prompts:
        package = warm_up(package, prompts)
        report = replace(report, size_bytes=package.size_bytes)
    quality = report.quality
    if json:
        parts = {
            "quality": quality.model_dump(mode="json"),
            "quantization": report.quantization.model_dump(mode="json"),
        }
        emit(asdict(report) | {"package": str(report.package), **parts, **describe(package)})
        return
    size, memory = report.size_bytes / 1e6, report.peak_rss_bytes / 1e6
    say(f"{report.name}: {size:.1f} MB, made in {report.seconds:.1f} s and {memory:.0f} MB of memory")
    say(f"  {_stored(report.quantization)}")
    say(f"  {describe_quality(quality)}")
    if report.prompt_kl is not None:
        say(f"  weights for prompts change what is said by {report.prompt_kl:.2g} nats per token")
    say_warm(package)
    if exporter == "optimum":
        say("  exported through optimum: it runs like any other model, but slower than edgeai's own architectures")
    typer.echo(report.package)


def _stored(quantization: Quantization) -> str:
    """How the weights are stored, and what re-quantizing means."""
    kinds = ", ".join(f"{count} {kind}" for kind, count in quantization.tensor_types.items())
    return f"{quantization.scheme}, {quantization.bits_per_weight:.2f} bits a weight: {kinds}"


def _plan(scheme: str | None, **options: Any) -> QuantizationPlan | None:
    """What the options ask for, in the place of the recipe's plan. Raises `InvalidInput`; None without any option."""
    from pydantic import ValidationError

    from edgeai.recipe import QuantizationPlan, describe_errors

    if scheme is None and not any(options.values()):
        return None
    try:
        chosen = {name: value for name, value in options.items() if value is not None}
        return QuantizationPlan.model_validate({"scheme": scheme or "auto", **chosen})
    except ValidationError as error:
        raise InvalidInput(f"these options do not go together: {describe_errors(error)}") from None


def describe_quality(quality: Quality | EncoderQuality) -> str:
    """What was measured, in a line."""
    from edgeai.package.manifest import EncoderQuality

    if isinstance(quality, EncoderQuality):
        least = f"{quality.min_cosine:.4f} at least, over {quality.texts} texts"
        return f"cosine to the float model {quality.mean_cosine:.4f} on average, {least}"
    beside = f"perplexity {quality.perplexity:.2f} beside {quality.reference_perplexity:.2f}"
    return f"{quality.mean_kl:.2g} nats per token from its source, {beside}"


def _require_build_half() -> None:
    """The base install is the device half. Raises `EdgeaiError` where the other is missing."""
    if find_spec("onnx") is None:
        raise EdgeaiError("this install only runs models, it cannot build them", "pip install 'edgeai[build]'")
