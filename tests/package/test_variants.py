"""Of a model that was built for several processors, the package for this one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeai.device.profile import Cpu
from edgeai.device.variants import chosen_variants, open_variant, suitable, unsuited
from edgeai.errors import InvalidInput, NotFound
from edgeai.package.cpu_targets import CPU_TARGETS, cpu_target, target_for
from edgeai.package.manifest import MANIFEST_NAME
from edgeai.package.package import Package
from edgeai.package.store import Store

PI4, PI5, LAPTOP = ("aarch64", ["asimd"]), ("aarch64", ["asimd", "dotprod"]), ("x86_64", ["avx2"])


def cpu(machine: str, features: list[str]) -> Cpu:
    return Cpu(machine, "", tuple(features), cores=4, threads=4, usable=4)


@pytest.mark.parametrize(("kind", "name"), [(PI4, "cortex-a72"), (PI5, "generic"), (LAPTOP, "generic")])
def test_targets_follow_the_processor(kind: tuple[str, list[str]], name: str) -> None:
    assert target_for(*kind).name == suitable(cpu(*kind)).name == name


def test_targets_go_by_several_names() -> None:
    assert cpu_target("raspberry-pi-4") is cpu_target("cortex-a72") is cpu_target("cortex-a53")
    names = [name for target in CPU_TARGETS for name in (target.name, *target.aliases)]
    assert len(names) == len(set(names))
    with pytest.raises(InvalidInput, match="no target is called 'pentium'"):
        cpu_target("pentium")


@pytest.fixture
def store(tmp_path: Path, make_package: Callable[..., Package]) -> Store:
    store = Store(tmp_path / "home")
    for name, targets in {"both": ("generic", "cortex-a72"), "plain": ("generic",), "slow": ("cortex-a72",)}.items():
        for target in targets:
            path = make_package(name).path
            manifest = json.loads((path / MANIFEST_NAME).read_text()) | {"target": target}
            (path / MANIFEST_NAME).write_text(json.dumps(manifest))
            store.install(path)
            shutil.rmtree(path)
    return store


def test_the_variant_for_this_processor_is_opened(store: Store) -> None:
    assert open_variant(store, "both", cpu(*PI4)).manifest.target == "cortex-a72"
    assert open_variant(store, "both", cpu(*LAPTOP)).manifest.target == "generic"
    assert open_variant(store, "both@cortex-a72", cpu(*LAPTOP)).manifest.target == "cortex-a72"
    assert open_variant(store, "slow", cpu(*LAPTOP)).manifest.target == "cortex-a72"  # it runs, if slower
    with pytest.raises(NotFound):
        open_variant(store, "missing", cpu(*PI4))


def test_each_model_is_served_once(store: Store) -> None:
    for kind, both in ((PI4, "cortex-a72"), (LAPTOP, "generic")):
        found = {package.name: package.manifest.target for package in chosen_variants(store, cpu(*kind))}
        assert found == {"both": both, "plain": "generic", "slow": "cortex-a72"}


def test_a_package_that_will_be_slow_is_told(store: Store) -> None:
    plain = store.open("plain")
    assert "build plain --target cortex-a72" in (unsuited(plain, cpu(*PI4)) or "")
    assert unsuited(plain, cpu(*PI5)) is None
    assert unsuited(open_variant(store, "both", cpu(*PI4)), cpu(*PI4)) is None
