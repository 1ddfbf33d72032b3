"""`edgeai build`: weights to a package."""

from __future__ import annotations

from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import typer

from edgeai.cli.output import AcceptLicence, JsonFlag, emit, progress_display, say
from edgeai.errors import EdgeaiError


def build(
    target: Annotated[
        str, typer.Argument(metavar="RECIPE|GGUF|DIR|hub:OWNER/NAME", help="A recipe's name or file, or weights.")
    ],
    out: Annotated[Path | None, typer.Option(help="Folder for the package, instead of installing it.")] = None,
    bits: Annotated[
        Literal["4", "8"] | None, typer.Option(help="Round weights that come as floats to this many bits.")
    ] = None,
    accept_licence: AcceptLicence = False,
    context: Annotated[
        int | None, typer.Option(min=1, help="Tokens the package is made for, instead of the model's own number.")
    ] = None,
    adapter: Annotated[
        Path | None, typer.Option(help="Folder of a PEFT LoRA adapter to merge into the weights.")
    ] = None,
    adapter_scale: Annotated[float, typer.Option(help="How much of the adapter to add; 1 is as it was trained.")] = 1.0,
    exporter: Annotated[
        Literal["edgeai", "optimum"],
        typer.Option(help="optimum: the fallback for other architectures, from a Hugging Face folder; slower."),
    ] = "edgeai",
    json: JsonFlag = False,
) -> None:
    """Make a model package and install it."""
    _require_build_half()
    from edgeai.build.exported import build_exported
    from edgeai.build.pipeline import build_package
    from edgeai.config import cache_dir, home_dir

    make = build_exported if exporter == "optimum" else build_package
    with progress_display() as progress:
        report = make(
            target,
            out=out,
            bits=int(bits) if bits else None,
            accept_licence=accept_licence,
            context=context,
            adapter=adapter,
            adapter_scale=adapter_scale,
            home=home_dir(),
            cache=cache_dir(),
            progress=progress,
        )
    quality = report.quality
    if json:
        emit(asdict(report) | {"package": str(report.package), "quality": quality.model_dump(mode="json")})
        return
    size, memory = report.size_bytes / 1e6, report.peak_rss_bytes / 1e6
    say(f"{report.name}: {size:.1f} MB, made in {report.seconds:.1f} s and {memory:.0f} MB of memory")
    beside = f"perplexity {quality.perplexity:.2f} beside {quality.reference_perplexity:.2f}"
    say(f"  {quality.mean_kl:.2g} nats per token from its source, {beside}")
    if exporter == "optimum":
        say("  exported through optimum: it runs like any other model, but slower than edgeai's own architectures")
    typer.echo(report.package)


def _require_build_half() -> None:
    """The base install is the device half. Raises `EdgeaiError` where the other is missing."""
    if find_spec("onnx") is None:
        raise EdgeaiError("this install only runs models, it cannot build them", "pip install 'edgeai[build]'")
