"""The system that an image holds, as the signed bundle of a newer one: what an update of an emulated board installs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from boot_machine import partition

from edgeai.bundle.keys import load_signing_key, make_key_pair
from edgeai.bundle.writer import Contents, write_bundle

_SUPERBLOCK = 1024  # of erofs, in bytes from its start
_BLOCK_BITS, _BLOCKS = slice(12, 13), slice(36, 40)  # within it
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Update:
    """A bundle, the public key that it is signed by, and its version."""

    bundle: Path
    public: Path
    version: str


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
    public, _ = make_key_pair(work / "publisher.pem")
    version = f"{release['version']}.1"
    contents = Contents("system", release["board"], files, version, {"board": release["board"]})
    bundle = work / "system.bundle"
    write_bundle(bundle, contents, [load_signing_key(work / "publisher.pem")])
    shutil.rmtree(work / "system")
    files["root.erofs"].unlink()
    return Update(bundle, public, version)


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
