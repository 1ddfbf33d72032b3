from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeai.errors import InvalidInput, NotFound, OutOfDisk, PackageError
from edgeai.package import durable
from edgeai.package.adapters import (
    AdapterManifest,
    AdapterOrigin,
    AdapterStore,
    InstalledAdapter,
    StoredTerm,
    split_name,
)
from edgeai.package.manifest import FileEntry

RNG = np.random.default_rng(0)
WEIGHTS = [RNG.normal(size=shape).astype(np.float32) for shape in ((8, 2), (2, 12), (6, 3), (3, 4))]
TERMS = (StoredTerm(site=0, inputs=8, rank=2, outputs=12), StoredTerm(site=3, inputs=6, rank=3, outputs=4))


def manifest(name: str = "style", base: str = "tiny", digest: str = "aa") -> AdapterManifest:
    return AdapterManifest(
        name=name,
        base=base,
        base_digest=digest,
        rank=3,
        parameters=70,
        scale=1.0,
        terms=TERMS,
        weights=FileEntry(sha256="", size=0),
        origin=AdapterOrigin(location="folder", sha256={}, builder="edgeai"),
    )


@pytest.fixture
def store(tmp_path: Path) -> AdapterStore:
    return AdapterStore(tmp_path)


@pytest.fixture
def installed(store: AdapterStore) -> InstalledAdapter:
    return store.add(manifest(), WEIGHTS)


def test_what_is_added_comes_back(store: AdapterStore, installed: InstalledAdapter) -> None:
    adapter = store.get("tiny", "style")
    assert adapter.manifest == installed.manifest
    assert (adapter.model_name, store.bases(), store.names("tiny")) == ("tiny:style", ("tiny",), ("style",))
    terms = adapter.load()
    assert sorted(terms) == [0, 3]
    for expected, value in zip(WEIGHTS, [*terms[0], *terms[3]], strict=True):
        assert np.array_equal(value, expected)


def test_the_same_name_replaces(store: AdapterStore, installed: InstalledAdapter) -> None:
    again = store.add(manifest(), [2 * values for values in WEIGHTS])
    assert again.digest != installed.digest
    assert np.array_equal(store.get("tiny", "style").load()[0][0], 2 * WEIGHTS[0])
    assert [path.name for path in store.folder("tiny").iterdir()] == ["style"]


def test_mapped_weights_survive_a_replacement(store: AdapterStore, installed: InstalledAdapter) -> None:
    """A server that uses an adapter keeps what it has mapped."""
    terms = installed.load()
    store.add(manifest(), [0 * values for values in WEIGHTS])
    assert np.array_equal(terms[0][0], WEIGHTS[0])


def test_removing(store: AdapterStore, installed: InstalledAdapter) -> None:
    store.remove("tiny", "style")
    assert store.names("tiny") == ()
    with pytest.raises(NotFound, match="no adapter 'style'"):
        store.get("tiny", "style")
    with pytest.raises(NotFound):
        store.remove("tiny", "style")


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data[:-1] + b"x", lambda data: b""])
def test_changed_weights_are_found(installed: InstalledAdapter, change) -> None:
    path = installed.path / "weights.bin"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(PackageError, match="tiny:style is damaged"):
        installed.load()


@pytest.mark.parametrize("text", ["", "{}", "[1]"])
def test_a_damaged_manifest_is_named_and_can_be_removed(
    store: AdapterStore, installed: InstalledAdapter, text: str
) -> None:
    (installed.path / "adapter.json").write_text(text)
    with pytest.raises(PackageError, match=r"adapter\.json is not valid"):
        store.get("tiny", "style")
    store.remove("tiny", "style")
    assert store.names("tiny") == ()


def test_nothing_is_left_of_an_adapter_that_does_not_fit_the_disk(
    store: AdapterStore, installed: InstalledAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **options: object) -> int:
        raise OutOfDisk("no room")

    monkeypatch.setattr(durable, "write_chunks", full)
    with pytest.raises(OutOfDisk):
        store.add(manifest("other"), WEIGHTS)
    assert [path.name for path in store.folder("tiny").iterdir()] == ["style"]


@pytest.mark.parametrize("name", ["", "..", "a/b", "Upper", "a:b", ".hidden"])
def test_names_that_cannot_be(store: AdapterStore, name: str) -> None:
    with pytest.raises(InvalidInput):
        store.get("tiny", name)
    with pytest.raises(InvalidInput):
        store.get(name, "style")
    with pytest.raises(InvalidInput):
        store.add(manifest(name), WEIGHTS)


def test_names_in_two_parts(tmp_path: Path) -> None:
    assert split_name("tiny:style") == ("tiny", "style")
    assert split_name("tiny") == ("tiny", None)
    folder = tmp_path / "odd:name"
    folder.mkdir()
    assert split_name(str(folder)) == (str(folder), None)
    assert split_name(f"{folder}:style") == (str(folder), "style")
