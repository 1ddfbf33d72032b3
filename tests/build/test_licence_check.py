"""Builds and downloads of weights that are not open."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeai.build.fetch import plan_download
from edgeai.build.licence_check import contradiction, require_accepted, stated_licence
from edgeai.build.pipeline import build_package
from edgeai.errors import LicenceNotAccepted
from edgeai.package import Package
from edgeai.progress import silent
from edgeai.recipe import Licence
from tests.fixtures.gguf_files import changed, tiny_llama
from tests.fixtures.hub_server import HubServer, Repository

REPO = "someone/tiny"
CUSTOM = 'spdx = "LicenseRef-strict"\nurl = "https://example.org/terms"\nnote = "For research only."\n'


def recipe(folder: Path, licence: str, words: str | None = "apache-2.0") -> str:
    """A recipe with this licence for a file that states another."""
    model = tiny_llama()
    model = changed(model, {"general.license": words}) if words else changed(model, {}, without=["general.license"])
    (folder / "tiny.gguf").write_bytes(model.to_bytes())
    path = folder / "tiny.toml"
    text = f'schema = 1\nname = "tiny"\n[licence]\n{licence}\n[[sources]]\nkind = "path"\npath = "tiny.gguf"\n'
    path.write_text(text)
    return str(path)


def build(spec: str, folder: Path, *, accept: bool = False, steps: list[str] | None = None) -> Package:
    def progress(step: str, done: int = 0, total: int = 0) -> None:
        if steps is not None:
            steps.append(step)

    report = build_package(
        spec, out=folder / "out", home=folder, cache=folder / "cache", accept_licence=accept, progress=progress
    )
    return Package.open(report.package, verify=True)


def test_a_custom_licence_has_to_be_accepted_and_that_is_recorded(tmp_path: Path) -> None:
    spec = recipe(tmp_path, CUSTOM, words=None)
    with pytest.raises(
        LicenceNotAccepted, match=r"LicenseRef-strict, which is not an open licence\. For research only"
    ):
        build(spec, tmp_path)
    with pytest.raises(LicenceNotAccepted, match=r"--accept-licence; its text: https://example.org/terms"):
        build(spec, tmp_path)
    assert not (tmp_path / "out").exists()
    package = build(spec, tmp_path, accept=True)
    assert package.manifest.licence_accepted is True
    assert package.manifest.licence.url == "https://example.org/terms"
    assert "For research only." in package.licence.read_text()


def test_an_open_licence_needs_nothing_and_records_nothing(tmp_path: Path) -> None:
    package = build(recipe(tmp_path, 'spdx = "Apache-2.0"'), tmp_path)
    assert package.manifest.licence_accepted is False
    assert package.manifest.origin.licence == "apache-2.0"


def test_a_source_that_states_another_licence_is_reported(tmp_path: Path) -> None:
    steps: list[str] = []
    build(recipe(tmp_path, 'spdx = "Apache-2.0"', words="mit"), tmp_path, steps=steps)
    assert "licence: tiny.gguf states MIT, the recipe says Apache-2.0" in steps


def test_a_source_under_closed_terms_is_not_opened_by_an_open_recipe(tmp_path: Path) -> None:
    spec = recipe(tmp_path, 'spdx = "Apache-2.0"', words="llama3.2")
    with pytest.raises(LicenceNotAccepted, match=r"tiny\.gguf is under LicenseRef-llama3\.2"):
        build(spec, tmp_path)
    assert build(spec, tmp_path, accept=True).manifest.licence_accepted is True


def test_files_on_this_machine_that_state_nothing_are_their_owners_business(tmp_path: Path) -> None:
    recipe(tmp_path, 'spdx = "MIT"', words=None)
    package = build(str(tmp_path / "tiny.gguf"), tmp_path)
    assert package.manifest.licence.spdx == "LicenseRef-unknown"


@pytest.mark.parametrize("words", ["gemma", None])
def test_a_hub_is_asked_for_no_weights_before_the_licence_is_accepted(
    hub_server: HubServer, tmp_path: Path, words: str | None
) -> None:
    hub_server.repositories[REPO] = Repository({"tiny.gguf": tiny_llama().to_bytes()}, licence=words)
    with pytest.raises(LicenceNotAccepted) as raised:
        build(f"hub:{REPO}", tmp_path)
    with pytest.raises(LicenceNotAccepted):
        plan_download(f"hub:{REPO}", tmp_path / "cache", silent)
    assert hub_server.gets("tiny.gguf") == []
    assert "--accept-licence" in raised.value.hint
    if words == "gemma":  # the note of the recipes that ship under the same terms
        assert "prohibited use policy" in raised.value.message
    assert plan_download(f"hub:{REPO}", tmp_path / "cache", silent, accept_licence=True).missing
    assert build(f"hub:{REPO}", tmp_path, accept=True).manifest.licence_accepted is True


def test_pieces() -> None:
    assert contradiction(Licence(spdx="MIT"), "mit", "x") is None
    assert contradiction(Licence(spdx="MIT"), "other", "x") is None
    assert stated_licence("llama3.2").url.startswith("https://www.llama.com/")
    assert require_accepted(Licence(spdx="LicenseRef-unknown"), False, "x", kind="path") is False
    with pytest.raises(LicenceNotAccepted):
        require_accepted(Licence(spdx="LicenseRef-unknown"), False, "x", kind="modelscope")
