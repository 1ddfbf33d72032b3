"""What an emulated board installs, as bundles: the system of its image as a newer one, its model by another name."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from boot_machine import partition
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgeai.bundle.keys import load_signing_key, make_key_pair
from edgeai.bundle.models import Parts
from edgeai.bundle.writer import Contents, write_bundle
from edgeai.package.manifest import MANIFEST_NAME
from edgeai.package.package import Package, manifest_bytes

TWIN = "twin"

_SUPERBLOCK = 1024  # of erofs, in bytes from its start
_BLOCK_BITS, _BLOCKS = slice(12, 13), slice(36, 40)  # within it
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Update:
    """A bundle and its version."""

    bundle: Path
    version: str


def signing_key(work: Path) -> Ed25519PrivateKey:
    """The publisher of this run; the public half is in `publisher.pub`."""
    private = work / "publisher.pem"
    if not private.exists():
        make_key_pair(private)
    return load_signing_key(private)


def make_model(package: Path, work: Path) -> Path:
    """The bundle of a package, which then is called `TWIN`."""
    manifest = Package.open(package).manifest.model_copy(update={"name": TWIN})
    (package / MANIFEST_NAME).write_bytes(manifest_bytes(manifest))
    bundle = work / f"{TWIN}.bundle"
    write_bundle(bundle, Parts.of(Package.open(package), work).contents, [signing_key(work)])
    return bundle


def make_update(image: Path, work: Path) -> Update:
    """Sign the system in slot a of an image, with a key of this run, as a newer version."""
    start, _ = partition(image, 1)
    subprocess.run(["mcopy", "-s", "-n", "-i", f"{image}@@{start}", "::a", str(work / "system")], check=True)
    release_file = work / "system" / "release.json"
    release = json.loads(release_file.read_text())
    release_file.unlink()
    for path in (work / "system").glob("cmdline.*"):
        text = re.sub(r"root=\S+-0[23]", "root=@ROOT@", path.read_text())
        path.write_text(re.sub(r"edgeai\.slot=[ab]", "edgeai.slot=@SLOT@", text))
    files = {f"boot/{path.name}": path for path in (work / "system").iterdir()}
    files["root.erofs"] = extract_root(image, work / "root.erofs")
    version = f"{release['version']}.1"
    contents = Contents("system", release["board"], files, version, {"board": release["board"]})
    bundle = work / "system.bundle"
    write_bundle(bundle, contents, [signing_key(work)])
    shutil.rmtree(work / "system")
    files["root.erofs"].unlink()
    return Update(bundle, version)


def extract_root(image: Path, target: Path) -> Path:
    """Copy the file system out of an image's second partition, which it does not fill."""
    start, _ = partition(image, 2)
    with image.open("rb") as source, target.open("wb") as file:
        source.seek(start + _SUPERBLOCK)
        head = source.read(64)
        left = int.from_bytes(head[_BLOCKS], "little") << head[_BLOCK_BITS][0]
        source.seek(start)
        while left > 0:
            left -= file.write(source.read(min(_CHUNK, left)))
    return target
