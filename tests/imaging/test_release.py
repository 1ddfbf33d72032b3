"""The files that leave the builder, for an image that is small."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import jsonschema
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgeai.bundle.reader import Bundle
from edgeai.imaging.plan import make_plan
from edgeai.imaging.release import SIGNATURE, SUMS, Release, imager_list, licences, sign_sums, write_update
from edgeai.package.package import Package
from tests.fixtures.images import BOARDS, IMAGES

IMAGE = b"an image" * 1000
# What an entry has to have by Imager's own os-list-schema.json.
REQUIRED_BY_IMAGER = {
    *("name", "description", "icon", "url", "extract_size", "extract_sha256", "image_download_size", "release_date"),
    "devices",
}
SCHEMA = json.loads((IMAGES / "imager-schema.json").read_text())


def release(folder: Path, board: str = "pi4", url: str = "") -> Release:
    made = Release(make_plan(IMAGES, board), "2026.11.30", folder, url)
    made.path(".img").write_bytes(IMAGE)
    made.path(".img.xz").write_bytes(b"smaller")
    return made


@pytest.mark.parametrize("board", BOARDS)
def test_imagers_list_is_what_imager_reads(tmp_path: Path, board: str) -> None:
    made = release(tmp_path, board, "https://images.example/edgeai/")
    digests = [hashlib.sha256(content).hexdigest() for content in (IMAGE, b"smaller")]
    document = imager_list(made, made.path(".img"), *digests)
    jsonschema.validate(document, SCHEMA)
    [entry] = document["os_list"]
    assert entry["url"] == f"https://images.example/edgeai/edgeai-{board}.img.xz"
    assert (entry["extract_size"], entry["image_download_size"]) == (len(IMAGE), 7)
    assert [entry["extract_sha256"], entry["image_download_sha256"]] == digests
    assert bool(entry["devices"]) == board.startswith(("pi", "zero"))


def test_the_schema_wants_what_imagers_own_does() -> None:
    assert set(SCHEMA["properties"]["os_list"]["items"]["required"]) >= REQUIRED_BY_IMAGER


def test_the_schema_refuses_what_imager_would(tmp_path: Path) -> None:
    made = release(tmp_path)
    document = imager_list(made, made.path(".img"), "no digest", "none")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, SCHEMA)


def test_digests_of_all_files_are_signed(tmp_path: Path) -> None:
    release(tmp_path)
    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    sign_sums(tmp_path, key, {})
    sums = (tmp_path / SUMS).read_bytes()
    listed = dict(line.split("  ")[::-1] for line in sums.decode().splitlines())
    assert listed == {
        name: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
        for name in ("edgeai-pi4.img", "edgeai-pi4.img.xz")
    }
    signature = (tmp_path / SIGNATURE).read_bytes()
    key.public_key().verify(signature, sums)
    with pytest.raises(InvalidSignature):
        key.public_key().verify(signature, sums + b"\n")
    sign_sums(tmp_path, key, {})
    assert (tmp_path / SUMS).read_bytes() == sums
    sign_sums(tmp_path, None, {})
    assert not (tmp_path / SIGNATURE).exists()  # an old one would be of other digests


def test_a_digest_that_is_known_is_not_taken_again(tmp_path: Path) -> None:
    release(tmp_path)
    sign_sums(tmp_path, None, {"edgeai-pi4.img.xz": "0" * 64})
    assert f"{'0' * 64}  edgeai-pi4.img.xz\n" in (tmp_path / SUMS).read_text()


def test_the_system_is_a_bundle_that_updates_take(tmp_path: Path) -> None:
    system = tmp_path / "system"
    (system / "boot").mkdir(parents=True)
    (system / "root.erofs").write_bytes(bytes(range(256)) * 4096)
    (system / "boot" / "cmdline.env").write_text("bootargs=root=@ROOT@ edgeai.slot=@SLOT@\n")
    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    write_update(release(tmp_path), system, key)
    with Bundle.open(str(tmp_path / "edgeai-pi4.bundle")) as bundle:
        manifest = bundle.head.manifest
        assert (manifest.kind, manifest.name, manifest.version) == ("system", "edgeai-pi4", "2026.11.30")
        assert manifest.metadata == {"board": "pi4"}
        assert set(manifest.files) == {"root.erofs", "boot/cmdline.env"}
        assert bundle.head.signers == (key.public_key().public_bytes_raw(),)


def test_licences_of_models_are_whole(tiny_package: Package) -> None:
    text = licences([tiny_package])
    assert text.startswith(f"{tiny_package.name}: {tiny_package.manifest.licence.spdx}\n===")
    assert (tiny_package.path / "LICENSE").read_text() in text
