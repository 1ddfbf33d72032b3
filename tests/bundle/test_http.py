"""Bundles over bad lines: resumed, fetched in part, and from servers that know no ranges."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgeai.bundle.importing import Imported, import_model
from edgeai.bundle.models import export_model
from edgeai.bundle.reader import Bundle
from edgeai.errors import BundleError, SourceError
from edgeai.package import Package, Store
from tests.bundle.web import Web, serve_folder
from tests.fixtures.bundles import noise
from tests.package.conftest import write_package


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    (tmp_path / "mirror").mkdir()
    with serve_folder(tmp_path / "mirror") as served:
        yield served


@pytest.fixture
def package(web: Web, tmp_path: Path, key: Ed25519PrivateKey) -> Package:
    """A model of 3 MB, on the mirror."""
    made = write_package(tmp_path / "made", weights_bin=noise(3_000_000))
    export_model(made, tmp_path / "home", web.folder / "small.bundle", [key])
    return made


def take(web: Web, home: Path, waits: Callable[[float], object] = lambda _seconds: None) -> Imported:
    with Bundle.open(f"{web.url}/small.bundle", sleep=waits) as bundle:
        return import_model(bundle, home, None)


def test_a_mirror_that_cuts_at_random(web: Web, package: Package, tmp_path: Path) -> None:
    web.cut_after = 50_000
    done = take(web, tmp_path / "clinic")
    assert done.package.digest == package.digest
    Store(tmp_path / "clinic").get("small", verify=True)
    assert web.cuts > 3
    assert web.sent < done.fetched + 100_000, "hardly anything is sent twice"


def test_a_mirror_without_ranges(web: Web, package: Package, tmp_path: Path) -> None:
    web.ranges = False
    assert take(web, tmp_path / "clinic").package.digest == package.digest
    assert web.sent < 3_400_000, "it is read once, from beginning to end, after the head"


def test_an_import_that_was_given_up_goes_on_where_it_stopped(web: Web, package: Package, tmp_path: Path) -> None:
    clinic = tmp_path / "clinic"
    first = web.folder / "small.bundle"
    data = first.read_bytes()
    first.write_bytes(data[:2_000_000])
    with pytest.raises((SourceError, BundleError)):
        take(web, clinic)
    assert Store(clinic).names() == ()
    first.write_bytes(data)
    before = web.sent
    done = take(web, clinic)
    assert done.package.digest == package.digest
    assert done.there > 1_500_000
    assert web.sent - before < 1_500_000


def test_only_what_is_new_is_fetched(web: Web, package: Package, tmp_path: Path, key: Ed25519PrivateKey) -> None:
    clinic = tmp_path / "clinic"
    take(web, clinic)
    content = package.weights.read_bytes()
    changed = content[:1_000_000] + noise(6400, 9) + content[1_006_400:2_000_000] + noise(64, 8) + content[2_000_000:]
    newer = write_package(tmp_path / "newer", weights_bin=changed)
    export_model(newer, tmp_path / "home", web.folder / "small.bundle", [key])
    before = web.sent
    done = take(web, clinic)
    assert done.package.digest == newer.digest
    assert done.reused > 2_700_000
    assert web.sent - before < 400_000


def test_a_server_that_is_gone_is_told(web: Web, package: Package, tmp_path: Path) -> None:
    waits: list[float] = []
    with pytest.raises(SourceError, match="5 times in a row"):
        Bundle.open("http://127.0.0.1:9/small.bundle", sleep=waits.append)
    assert len(waits) == 4
    with pytest.raises(BundleError, match="404"):
        Bundle.open(f"{web.url}/nothing.bundle")


def test_a_mirror_that_changes_its_mind(web: Web, package: Package, tmp_path: Path) -> None:
    """The bundle is replaced by another between the head and the rest."""
    with Bundle.open(f"{web.url}/small.bundle") as bundle:
        file = web.folder / "small.bundle"
        file.write_bytes(file.read_bytes()[:-3_000_000] + noise(3_000_000, 7))
        with pytest.raises(BundleError, match="not what was signed"):
            import_model(bundle, tmp_path / "clinic", None)
    assert Store(tmp_path / "clinic").names() == ()


def test_a_server_that_sends_no_end(web: Web, package: Package, tmp_path: Path) -> None:
    """More than was asked for is not read."""
    file = web.folder / "small.bundle"
    file.write_bytes(file.read_bytes() + noise(1_000_000))
    assert take(web, tmp_path / "clinic").received < 3_100_000
