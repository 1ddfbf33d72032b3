"""The store: list, get, install, remove; names; damaged and half-copied packages."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeai.errors import InvalidInput, NotFound, PackageError
from edgeai.package import Package, Store
from edgeai.package.ownership import as_owner_of
from tests.fixtures.patience import PATIENCE
from tests.package.conftest import write_package

Make = Callable[..., Package]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


def test_an_empty_store(store: Store) -> None:
    assert store.list() == ()
    with pytest.raises(NotFound, match="no model is called 'small'") as raised:
        store.get("small")
    assert "edgeai build" in raised.value.hint


def test_install_list_get_remove(store: Store, make_package: Make) -> None:
    source = make_package("small-1b")
    installed = store.install(source.path)
    assert installed.path == store.path_for("small-1b")
    assert installed.digest == source.digest
    assert [package.name for package in store.list()] == ["small-1b"]
    store.get("small-1b", verify=True)
    store.remove("small-1b")
    assert store.list() == ()
    assert [path.name for path in store.folder.iterdir()] == []
    with pytest.raises(NotFound):
        store.remove("small-1b")


def test_a_name_that_is_near_is_suggested(store: Store, make_package: Make) -> None:
    store.install(make_package("smollm2-135m-instruct").path)
    with pytest.raises(NotFound) as raised:
        store.get("smollm2-135m")
    assert raised.value.hint == "installed: smollm2-135m-instruct"


@pytest.mark.parametrize("name", ["..", "../x", "/x", "", "A", "a/b", "a\n", ".lock", "-x", "x" * 101])
def test_names_that_are_no_plain_folder_names_are_refused(store: Store, name: str) -> None:
    with pytest.raises(InvalidInput, match="is not a model name"):
        store.path_for(name)


def test_a_package_whose_name_reaches_out_is_not_installed(store: Store, tmp_path: Path) -> None:
    evil = write_package(tmp_path / "evil", "../../evil")
    with pytest.raises(InvalidInput, match="is not a model name"):
        store.install(evil.path)


def test_a_damaged_package_is_not_installed_and_leaves_nothing(store: Store, make_package: Make) -> None:
    source = make_package()
    source.weights.write_bytes(bytes(16384))
    with pytest.raises(PackageError, match=r"weights\.bin has been changed"):
        store.install(source.path)
    assert list(store.folder.iterdir()) == []


def test_a_newer_package_replaces_the_installed_one(store: Store, make_package: Make) -> None:
    store.install(make_package().path)
    newer = make_package(weights_bin=b"newer")
    store.install(newer.path)
    assert store.get("small").digest == newer.digest
    assert [path.name for path in store.folder.iterdir()] == ["small"]


def test_a_damaged_package_is_not_listed_but_can_be_removed(store: Store, make_package: Make) -> None:
    store.install(make_package("good").path)
    store.install(make_package("bad").path).graph.unlink()
    assert [package.name for package in store.list()] == ["good"]
    assert store.names() == ("bad", "good")
    with pytest.raises(PackageError, match=r"model\.onnx is missing"):
        store.get("bad")
    store.remove("bad")
    assert store.names() == ("good",)


def test_a_model_is_opened_by_name_or_by_folder(
    store: Store, make_package: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = make_package()
    store.install(package.path)
    assert store.open("small").path == store.path_for("small")
    assert store.open(str(package.path)).path == package.path
    monkeypatch.chdir(package.path.parent)
    assert store.open("small").path == Path("small")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small").mkdir()
    assert store.open("small").path == store.path_for("small"), "a folder that is no package does not hide a model"


INSTALL = "import sys; from pathlib import Path; from edgeai.package import Store; "
INSTALL += "Store(Path(sys.argv[1])).install(Path(sys.argv[2]))"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as somebody else")
def test_a_name_is_found_from_a_folder_of_somebody_else(
    store: Store, make_package: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.install(make_package().path)
    closed, home = tmp_path / "closed", store.folder
    closed.mkdir(mode=0o700)
    for folder in (home, *home.parents[:-1]):
        folder.chmod(folder.stat().st_mode | 0o055)
    os.chown(home, 65533, 65533)
    monkeypatch.chdir(closed)
    with as_owner_of(home):
        assert store.open("small").name == "small"


def test_a_second_writer_waits_for_the_first(store: Store, make_package: Make) -> None:
    package = make_package()
    with store.locked():
        process = subprocess.Popen([sys.executable, "-c", INSTALL, store.home, package.path])
        time.sleep(1.0)
        assert process.poll() is None
        assert store.names() == ()
    assert process.wait(timeout=PATIENCE) == 0
    assert store.names() == ("small",)
