"""Models out of one home and into another: whole or not at all, whatever happens on the way."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgeai.bundle.importing import INCOMING_FOLDER, Imported, check_signed, import_model
from edgeai.bundle.keys import TrustStore
from edgeai.bundle.models import Parts, export_model, head_of
from edgeai.bundle.reader import Bundle
from edgeai.bundle.writer import Contents, write_bundle
from edgeai.errors import BundleError, InvalidInput, PackageError, Untrusted
from edgeai.package import Package, Store
from edgeai.package.adapters import AdapterManifest, AdapterOrigin, AdapterStore, StoredTerm
from edgeai.package.aliases import AliasFile
from edgeai.package.manifest import FileEntry
from tests.bundle.power import PowerCut, cut_at
from tests.fixtures.bundles import noise
from tests.package.conftest import write_package

Make = Callable[..., Package]


def add_adapter(home: Path, package: Package, name: str = "water") -> None:
    manifest = AdapterManifest(
        name=name, base=package.name, base_digest=package.model_digest, rank=2, parameters=16, scale=1.0,
        terms=(StoredTerm(site=0, inputs=4, rank=2, outputs=4),), weights=FileEntry(sha256="", size=0),
        origin=AdapterOrigin(location="x", sha256={}, builder="test"),
    )  # fmt: skip
    AdapterStore(home).add(manifest, [np.ones((4, 2), np.float32), np.ones((2, 4), np.float32)])


@pytest.fixture
def school(tmp_path: Path) -> Path:
    """A home with a model that has an adapter and two more names."""
    home = tmp_path / "school"
    package = write_package(home / "models" / "small", weights_bin=noise(200_000))
    add_adapter(home, package)
    AliasFile(home).set("gpt", "small")
    AliasFile(home).set("water-gpt", "small:water")
    return home


@pytest.fixture
def bundle(school: Path, tmp_path: Path, key: Ed25519PrivateKey) -> Path:
    export_model(Store(school).get("small"), school, tmp_path / "small.bundle", [key])
    return tmp_path / "small.bundle"


@pytest.fixture
def clinic(tmp_path: Path) -> Path:
    return tmp_path / "clinic"


def take(path: Path, home: Path, **options: bool) -> Imported:
    with Bundle.open(str(path)) as bundle:
        return import_model(bundle, home, None, **options)


def whole(home: Path) -> None:
    """All that the school has is there, and nothing is left over."""
    package = Store(home).get("small", verify=True)
    AdapterStore(home).get_for(package, "water").load()
    assert AliasFile(home).all() == {"gpt": "small", "water-gpt": "small:water"}
    assert list((home / INCOMING_FOLDER).iterdir()) == []


def test_a_model_moves_with_all_that_belongs_to_it(bundle: Path, clinic: Path, school: Path) -> None:
    done = take(bundle, clinic)
    whole(clinic)
    assert done.adapters == ("water",)
    assert done.aliases == ("gpt", "water-gpt")
    assert done.package.digest == Store(school).get("small").digest
    assert done.fetched == sum(path.stat().st_size for path in school.glob("*/small/**/*") if path.is_file())


def test_once_more_changes_nothing(bundle: Path, clinic: Path) -> None:
    take(bundle, clinic)
    done = take(bundle, clinic)
    whole(clinic)
    assert done.fetched == done.reused == 0


def test_a_damaged_model_is_mended(bundle: Path, clinic: Path) -> None:
    package = take(bundle, clinic).package
    data = bytearray(package.weights.read_bytes())
    data[100_000] ^= 1
    package.weights.write_bytes(data)
    done = take(bundle, clinic)
    whole(clinic)
    assert 0 < done.fetched < 100_000
    assert done.reused > 100_000


def test_a_newer_one_needs_what_is_new(bundle: Path, school: Path, clinic: Path, key: Ed25519PrivateKey) -> None:
    take(bundle, clinic)
    newer = write_package(school / "models" / "small", weights_bin=noise(200_000)[:-640] + noise(640, 2))
    export_model(newer, school, bundle, [key])
    done = take(bundle, clinic)
    assert done.package.digest == newer.digest
    assert done.fetched < 100_000
    assert take(bundle, clinic, delta=False).fetched == 0


def test_a_bundle_for_some_processors_has_a_place_of_its_own(make_package: Make, clinic: Path, tmp_path: Path) -> None:
    package = make_package()
    path = package.path / "manifest.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {"target": "a76"}, sort_keys=True, indent=2) + "\n")
    export_model(Package.open(package.path), tmp_path, tmp_path / "b", [])
    assert take(tmp_path / "b", clinic).package.path.name == "small@a76"


def test_other_names_that_mean_something_here_keep_it(bundle: Path, clinic: Path, make_package: Make) -> None:
    Store(clinic).install(make_package("other").path)
    AliasFile(clinic).set("gpt", "other")
    assert take(bundle, clinic).aliases == ("water-gpt",)
    assert AliasFile(clinic).all()["gpt"] == "other"


def test_a_bundle_cannot_rename_other_models(make_package: Make, clinic: Path, tmp_path: Path) -> None:
    package = make_package()
    home = tmp_path / "made"
    AliasFile(home).set("bank", "other")
    export_model(package, home, tmp_path / "b", [])
    take(tmp_path / "b", clinic)
    assert AliasFile(clinic).all() == {}


def test_unsigned_ones_are_refused_unless_told(make_package: Make, trust: TrustStore, tmp_path: Path) -> None:
    export_model(make_package(), tmp_path, tmp_path / "b", [])
    with Bundle.open(str(tmp_path / "b")) as opened:
        with pytest.raises(Untrusted, match="nobody has signed") as raised:
            check_signed(opened, trust, unsigned=False)
        assert "--unsigned" in raised.value.hint
        assert check_signed(opened, trust, unsigned=True) is None


def test_a_system_is_no_model(make_bundle: Callable[..., Path], clinic: Path) -> None:
    with pytest.raises(BundleError, match="holds a system"):
        take(make_bundle({"root.erofs": b"x"}), clinic)
    assert not (clinic / "models").exists()


@pytest.mark.parametrize("change", ["name", "digest", "file"])
def test_a_bundle_that_contradicts_its_package_is_refused(
    bundle: Path, school: Path, clinic: Path, tmp_path: Path, change: str
) -> None:
    """Rightly signed, but not made by `edgeai export`."""
    with Bundle.open(str(bundle)) as opened:
        manifest = opened.head.manifest
    package = Store(school).get("small").path
    files = {path.name: path for path in package.iterdir()}
    metadata = dict(manifest.metadata)
    if change == "digest":
        metadata["digest"] = "0" * 64
    if change == "file":
        files["extra.bin"] = package / "LICENSE"
    contents = Contents("model", "other" if change == "name" else "small", files, metadata=metadata)
    write_bundle(tmp_path / "b", contents, [])
    with pytest.raises(BundleError, match="not of the package"):
        take(tmp_path / "b", clinic)
    assert Store(clinic).names() == ()


def test_what_was_given_up_of_an_older_version_is_removed(bundle: Path, school: Path, clinic: Path) -> None:
    cut = bundle.with_name("cut")
    cut.write_bytes(bundle.read_bytes()[:-50_000])
    with pytest.raises(BundleError):
        take(cut, clinic)
    assert len(list((clinic / INCOMING_FOLDER).iterdir())) == 1
    newer = write_package(school / "models" / "small", weights_bin=noise(200_000, 4))
    export_model(newer, school, bundle, [])
    take(bundle, clinic)
    assert list((clinic / INCOMING_FOLDER).iterdir()) == []


def test_an_adapter_for_another_build_is_refused_before_anything_changes(
    school: Path, clinic: Path, tmp_path: Path
) -> None:
    package = Store(school).get("small")
    parts = Parts.of(package, school)
    other = write_package(tmp_path / "other" / "models" / "small", weights_bin=noise(1000))
    contents = Parts.of(other, tmp_path / "other").contents
    adapter_files = {name: path for name, path in parts.files.items() if "/" in name}
    write_bundle(tmp_path / "b", replace(contents, files={**contents.files, **adapter_files}), [])
    with pytest.raises(PackageError, match="not water for this build"):
        take(tmp_path / "b", clinic)
    assert Store(clinic).names() == ()


def test_a_damaged_adapter_is_not_exported(school: Path, tmp_path: Path) -> None:
    package = Store(school).get("small")
    (AdapterStore(school).get("small", "water").path / "weights.bin").write_bytes(bytes(64))
    with pytest.raises(PackageError, match="damaged"):
        export_model(package, school, tmp_path / "b", [])
    with pytest.raises(PackageError, match="damaged"):
        head_of(Parts.of(package, school), school)


def test_a_damaged_head_that_was_kept_is_made_anew(bundle: Path, school: Path) -> None:
    (kept,) = (school / "bundles").iterdir()
    parts = Parts.of(Store(school).get("small"), school)
    assert head_of(parts, school).signers
    kept.write_bytes(kept.read_bytes()[:-1])
    assert head_of(parts, school).signers == ()


def test_another_import_of_it_is_told(bundle: Path, clinic: Path) -> None:
    with Bundle.open(str(bundle)) as opened:
        fetch = opened.chunks

        def busy(wanted: object) -> object:
            with pytest.raises(InvalidInput, match="being imported already"):
                take(bundle, clinic)
            return fetch(wanted)  # type: ignore[arg-type]

        opened.chunks = busy  # type: ignore[method-assign, assignment]
        import_model(opened, clinic, None)
    whole(clinic)


def test_a_truncated_stick_leaves_the_old_model(bundle: Path, clinic: Path, tmp_path: Path) -> None:
    old = Store(clinic).install(write_package(tmp_path / "old").path)
    cut = tmp_path / "cut"
    cut.write_bytes(bundle.read_bytes()[:-50_000])
    with pytest.raises(BundleError, match="cut off"):
        take(cut, clinic)
    assert Store(clinic).get("small", verify=True).digest == old.digest
    done = take(bundle, clinic)
    assert done.there > 100_000, "what came is not asked for again"
    whole(clinic)


def test_power_cut_at_any_write(bundle: Path, clinic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At each write, flush and rename in turn: the old model or the new one, and the next try makes it whole."""
    old = write_package(tmp_path / "old", weights_bin=noise(200_000, 5))
    new = ""
    for operation in range(1000):
        home = clinic / str(operation)
        Store(home).install(old.path)
        with cut_at(monkeypatch, operation, home) as power:
            try:
                take(bundle, home)
            except PowerCut:
                assert power.cut
            else:
                break
        found = Store(home).get("small", verify=True).digest
        new = new or take(bundle, home).package.digest
        assert found in (old.digest, new)
        take(bundle, home)
        whole(home)
    assert operation > 20
