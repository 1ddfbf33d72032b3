"""Opening and verifying packages: everything that can be wrong with one is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeai.errors import NotFound, PackageError
from edgeai.package import Package

Make = Callable[..., Package]


def edit_manifest(package: Package, **changes: Any) -> None:
    path = package.path / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_package_knows_its_files_and_size(make_package: Make) -> None:
    package = make_package()
    assert package.graph.read_bytes() == b"a graph"
    assert package.weights.stat().st_size == 16384
    assert package.tokenizer.name == "tokenizer.json"
    assert package.template is not None
    assert package.licence.read_text() == "do as you like"
    assert package.size_bytes == sum(p.stat().st_size for p in package.path.iterdir() if p.name != "manifest.json")
    assert package.check() == []


def test_the_digest_is_the_content_s_identity_and_not_the_formatting_s(make_package: Make, tmp_path: Path) -> None:
    package = make_package()
    document = json.loads((package.path / "manifest.json").read_text())
    (package.path / "manifest.json").write_text(json.dumps(document, indent=1))
    assert Package.open(package.path).digest == package.digest
    assert make_package(weights_bin=b"other").digest != package.digest
    assert len(package.digest) == 64


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "cannot be read"),
        ("[]", "not a JSON object"),
        ("{}", "does not say its schema_version"),
        ('{"schema_version": 2}', "schema version 2, newer than 1"),
        ('{"schema_version": 1}', "files: missing"),
    ],
)
def test_a_manifest_that_is_not_one_is_refused(make_package: Make, text: str, says: str) -> None:
    package = make_package()
    (package.path / "manifest.json").write_text(text)
    with pytest.raises(PackageError, match=says):
        Package.open(package.path)


def test_an_unknown_key_and_a_value_of_the_wrong_kind_are_named(make_package: Make) -> None:
    package = make_package()
    edit_manifest(package, surprise=1, name=["no", "string"])
    with pytest.raises(PackageError, match="surprise: unknown key") as raised:
        Package.open(package.path)
    assert "name: Input should be a valid string" in raised.value.message


def test_a_tool_format_that_there_is_not_is_refused_with_those_that_there_are(make_package: Make) -> None:
    package = make_package()
    edit_manifest(package, prompt={"tool_format": "html"})
    with pytest.raises(PackageError, match=r"prompt\.tool_format: Input should be 'hermes', .*, not 'html'"):
        Package.open(package.path)


@pytest.mark.parametrize("name", ["../weights.bin", "/etc/passwd", "a/b", "manifest.json", "", ".hidden"])
def test_a_file_name_that_reaches_out_of_the_package_is_refused(make_package: Make, name: str) -> None:
    package = make_package()
    files = {key: entry.model_dump() for key, entry in package.manifest.files.items()}
    edit_manifest(package, files=files | {name: {"sha256": "0", "size": 0}})
    with pytest.raises(PackageError, match="is not a name for a package's file"):
        Package.open(package.path)


def test_a_missing_folder_and_a_folder_without_manifest(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no package at"):
        Package.open(tmp_path / "nothing")
    with pytest.raises(PackageError, match="is not a model package"):
        Package.open(tmp_path)


def test_a_manifest_without_a_file_that_every_package_has(make_package: Make) -> None:
    package = make_package()
    edit_manifest(package, files={})
    with pytest.raises(PackageError, match=r"model\.onnx is not in the manifest"):
        Package.open(package.path)


def test_all_problems_are_listed_together(make_package: Make) -> None:
    package = make_package()
    package.graph.unlink()
    package.weights.write_bytes(b"short")
    (package.path / "extra.txt").write_bytes(b"")
    package.tokenizer.unlink()
    package.tokenizer.symlink_to("LICENSE")
    expected = [
        "model.onnx is missing",
        "tokenizer.json is not a plain file",
        "weights.bin has 5 bytes instead of 16384",
        "extra.txt does not belong to the package",
    ]
    assert package.check() == expected
    with pytest.raises(PackageError, match=r"extra\.txt does not belong") as raised:
        package.verify()
    assert all(problem in raised.value.message for problem in expected)


def test_one_flipped_bit_shows_when_contents_are_read(make_package: Make) -> None:
    package = make_package()
    data = bytearray(package.weights.read_bytes())
    data[1234] ^= 4
    package.weights.write_bytes(data)
    assert Package.open(package.path).check_sizes() == []
    with pytest.raises(PackageError, match=r"weights\.bin has been changed"):
        Package.open(package.path, verify=True)


def test_verifying_tells_how_far_it_is(make_package: Make) -> None:
    package = make_package()
    seen: list[tuple[str, int, int]] = []
    package.verify(lambda step, done=0, total=0: seen.append((step, done, total)))
    assert len(seen) == 5
    assert seen[-1] == ("verify", package.size_bytes, package.size_bytes)
