"""All files that leave the builder, by the real tools, for an image that is small."""

from __future__ import annotations

import json
import lzma
import zipfile
from pathlib import Path

import jsonschema
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgeai.imaging.image import Built
from edgeai.imaging.plan import make_plan
from edgeai.imaging.release import publish
from edgeai.imaging.tools import Tools
from edgeai.package.package import Package
from edgeai.package.store import Store
from tests.fixtures.images import IMAGES, small_root

pytestmark = pytest.mark.image

PLAN = make_plan(IMAGES, "generic-x86_64")
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
NAME = "edgeai-generic-x86_64"


def built(folder: Path, tools: Tools, package: Package) -> Built:
    for name in ("wheels", "system/boot"):
        (folder / name).mkdir(parents=True)
    small_root(PLAN).write(folder / "rootfs.tar", PLAN.base.epoch)
    with zipfile.ZipFile(folder / "wheels" / "toy-1-py3-none-any.whl", "w") as archive:
        archive.writestr("toy-1.dist-info/METADATA", "Name: toy\nVersion: 1\nLicense-Expression: MIT\n")
    (folder / "system" / "root.erofs").write_bytes(b"root" * 1024)
    (folder / "system" / "boot" / "vmlinuz").write_bytes(b"kernel")
    Store(folder / "models").install(package.path)
    disk = folder / f"{NAME}.img"
    with disk.open("wb") as file:
        file.write(b"begin" * 1000)
        file.seek(32 << 20)  # a hole
        file.write(b"end" * 1000)
    return Built(tools, None, folder, folder / "wheels", folder / "system", folder / "models", disk)


def test_a_release_is_whole_and_the_same_each_time(image_tools: Tools, tiny_package: Package, tmp_path: Path) -> None:
    made = built(tmp_path / "built", image_tools, tiny_package)
    for name in ("one", "two"):
        publish(PLAN, made, tmp_path / name, version="2026.11.30", key=KEY)
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "two"))
    suffixes = (".img.xz", ".bmap", ".bundle", ".spdx.json", ".licences.txt", ".imager.json", ".md")
    assert one.keys() == {*(NAME + suffix for suffix in suffixes), "icon.svg", "SHA256SUMS", "SHA256SUMS.sig"}
    assert one == two
    assert lzma.decompress(one[f"{NAME}.img.xz"]) == made.disk.read_bytes()
    jsonschema.validate(json.loads(one[f"{NAME}.imager.json"]), json.loads((IMAGES / "imager-schema.json").read_text()))
    named = {entry["name"] for entry in json.loads(one[f"{NAME}.spdx.json"])["packages"]}
    assert {"systemd", "toy", "edgeai", tiny_package.name, "grub-pc-bin", "grub-efi-amd64-bin"} <= named
    KEY.public_key().verify(one["SHA256SUMS.sig"], one["SHA256SUMS"])


def test_a_card_is_written_by_its_block_map(image_tools: Tools, tiny_package: Package, tmp_path: Path) -> None:
    made = built(tmp_path / "built", image_tools, tiny_package)
    out = tmp_path / "out"
    publish(PLAN, made, out, version="2026.11.30")
    assert f"{NAME}.bundle" not in {path.name for path in out.iterdir()}  # nobody signed it
    card = tmp_path / "card"
    card.mkdir()
    files = [f"/out/{NAME}.bmap", f"/out/{NAME}.img.xz", "/card/card.img"]
    image_tools.run(["bmaptool", "copy", "--bmap", *files], binds={out: "/out", card: "/card"})
    assert (card / "card.img").read_bytes() == made.disk.read_bytes()
