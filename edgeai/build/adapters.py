"""Adapters to a package: merged into the weights of a build, or installed beside an existing package.

Installing needs neither the base's weights nor anything of the build half but numpy: a board can do it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import edgeai
from edgeai.build.target import Target, name_from
from edgeai.errors import InvalidInput, UnsupportedModel
from edgeai.package.adapter_sites import AdapterSite, read_sites
from edgeai.package.adapters import AdapterManifest, AdapterOrigin, AdapterStore, InstalledAdapter, StoredTerm
from edgeai.package.manifest import ADAPTER_SITES_NAME, FileEntry
from edgeai.package.package import Package
from edgeai.sources.merged import MergedSource
from edgeai.sources.peft import LowRank, PeftAdapter

Floats = NDArray[np.float32]


def merged(target: Target, folder: Path, scale: float, bits: float | None) -> Target:
    """The same target with an adapter merged into its weights, under a name that says so.

    Raises `InvalidInput` where merged matrices would leave the grid they are stored on and `bits` does not say which
    one to round them to; `SourceError` for an adapter that is damaged or does not fit.
    """
    adapter = PeftAdapter(folder)
    source = MergedSource(target.source, adapter, _checked(scale))
    if source.requantized and bits is None:
        first, count = source.requantized[0], len(source.requantized)
        raise InvalidInput(
            f"{count} matrices that the adapter changes, such as {first.name}, are stored as {first.encoding}; merged"
            " they no longer lie on that grid",
            "say what to round them to with --bits 8 or --bits 4, merge into the float checkpoint, or keep base and"
            " adapter apart with `edgeai adapter add`",
            param="bits",
        )
    return replace(target, name=f"{target.name}-{name_from(folder)}"[:100], source=source)


def install(base: Package, folder: Path, name: str, home: Path, scale: float = 1.0) -> InstalledAdapter:
    """Convert the PEFT adapter in `folder` and install it for `base` as `name`; `scale` is on top of its own.

    Raises `UnsupportedModel` for a base that takes no adapters and for variants of LoRA, `SourceError` for an adapter
    that is damaged or does not fit, `OutOfDisk`. Nothing is installed then.
    """
    if base.adapter_graph is None:
        raise UnsupportedModel(f"{base.name} takes no adapters", "build it again, without --exporter")
    sites = read_sites(base.path / ADAPTER_SITES_NAME)
    adapter = PeftAdapter(folder)
    adapter.check_base(_shapes(sites), base.name)
    terms = site_terms(adapter, sites, _checked(scale))
    manifest = AdapterManifest(
        name=name,
        base=base.name,
        base_digest=base.model_digest,
        rank=adapter.rank,
        parameters=adapter.parameters,
        scale=scale,
        terms=tuple(
            StoredTerm(site=site, inputs=len(a), rank=len(b), outputs=b.shape[1]) for site, (a, b) in terms.items()
        ),
        weights=FileEntry(sha256="", size=0),  # filled in when it is written
        origin=AdapterOrigin(location=adapter.name, sha256=adapter.digests(), builder=f"edgeai {edgeai.__version__}"),
    )
    return AdapterStore(home).add(manifest, [factor for pair in terms.values() for factor in pair])


def _shapes(sites: Sequence[AdapterSite]) -> dict[str, tuple[int, int]]:
    """Shape [outputs, inputs] of every module that may be changed."""
    pairs = ((site, pair) for site in sites for pair in zip(site.modules, site.sizes, strict=True))
    return {module: (size, site.inputs) for site, (module, size) in pairs}


def site_terms(adapter: PeftAdapter, sites: Sequence[AdapterSite], scale: float) -> dict[int, tuple[Floats, Floats]]:
    """Factors a [inputs, rank] and b [rank, outputs], all scales included, of every site that the adapter changes."""
    return {
        number: _site_factors(adapter, site, scale)
        for number, site in enumerate(sites)
        if not adapter.modules.keys().isdisjoint(site.modules)
    }


def _site_factors(adapter: PeftAdapter, site: AdapterSite, scale: float) -> tuple[Floats, Floats]:
    """The modules' own factors lie side by side in a, and in b below each other, each in the columns of its module."""
    parts = list(_parts(adapter, site))
    a = np.concatenate([factors.a for factors, _ in parts]).T
    b = np.zeros((a.shape[1], sum(site.sizes)), np.float32)
    row = 0
    for factors, start in parts:
        rank, size = len(factors.a), len(factors.b)
        b[row : row + rank, start : start + size] = factors.b.T * np.float32(factors.scale * scale)
        row += rank
    return np.ascontiguousarray(a), b


def _parts(adapter: PeftAdapter, site: AdapterSite) -> Iterator[tuple[LowRank, int]]:
    """The adapter's factors for a site's modules, with the column their outputs start at."""
    starts: Sequence[int] = np.cumsum([0, *site.sizes]).tolist()
    for module, start in zip(site.modules, starts, strict=False):
        if module in adapter.modules:
            yield adapter.load(module), start


def _checked(scale: float) -> float:
    if not -100 <= scale <= 100:  # written so that NaN fails
        raise InvalidInput(f"an adapter scale of {scale} makes no sense", "use about 1", param="adapter_scale")
    return scale
