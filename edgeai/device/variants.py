"""Of several packages of one model, made for different processors, the one for this processor."""

from __future__ import annotations

from pathlib import Path

from edgeai.device.profile import Cpu
from edgeai.package.cpu_targets import CPU_TARGETS, GENERIC, CpuTarget, target_for
from edgeai.package.manifest import MANIFEST_NAME
from edgeai.package.package import Package
from edgeai.package.store import AT, Store


def suitable(cpu: Cpu) -> CpuTarget:
    """The target whose packages are fastest on this processor."""
    return target_for(cpu.machine, cpu.features)


def open_variant(store: Store, model: str, cpu: Cpu) -> Package:
    """What a user calls `model`: a folder, NAME@TARGET, or a name, whose variant is chosen for this processor.

    Raises as `Store.open`; a variant that suits and is damaged is not passed over.
    """
    if "/" in model or AT in model or (Path(model) / MANIFEST_NAME).is_file():
        return store.open(model)
    for target in dict.fromkeys((suitable(cpu), GENERIC, *CPU_TARGETS)):
        path = store.path_for(model, target.name)
        if path.is_dir():
            return store.get(path.name)
    return store.get(model)


def chosen_variants(store: Store, cpu: Cpu) -> list[Package]:
    """All models that open, by the names they are installed under, of each the variant for this processor."""
    order = [target.name for target in dict.fromkeys((suitable(cpu), GENERIC, *CPU_TARGETS))]
    best: dict[str, Package] = {}
    for package in sorted(store.list(), key=lambda package: order.index(package.manifest.target)):
        best.setdefault(package.path.name.partition(AT)[0], package)
    return [best[name] for name in sorted(best)]


def unsuited(package: Package, cpu: Cpu) -> str | None:
    """What to tell whoever runs a package that is slow on this processor and would be faster in another form."""
    target = suitable(cpu)
    made_for, fused = package.manifest.target, package.manifest.runtime == "fused"
    if package.manifest.kind != "decoder" or made_for == target.name or not fused:
        return None
    return (
        f"{package.name} is made for target {made_for} and will be slow on this CPU, where {target.why};"
        f" `edgeai build {package.name} --target {target.name}` makes one for it"
    )
