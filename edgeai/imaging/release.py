"""The files that leave the builder, from a finished disk image.

    NAME.img.xz  NAME.bmap  NAME.bundle  NAME.spdx.json  NAME.licences.txt  NAME.md  NAME.imager.json  icon.svg
    SHA256SUMS, and SHA256SUMS.sig: Ed25519 over it

All of it is the same for the same inputs, the signature too.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgeai.appliance.system_update import ROOT as ROOT_IMAGE
from edgeai.bundle.writer import Contents, write_bundle
from edgeai.imaging import uboot
from edgeai.imaging.boot import FIRMWARE_PACKAGE, GRUB_PACKAGES
from edgeai.imaging.image import Built
from edgeai.imaging.models import installed
from edgeai.imaging.plan import Plan
from edgeai.imaging.rootfs import ROOTFS_NAME
from edgeai.imaging.sbom import (
    Component,
    debian_components,
    document,
    model_component,
    own_component,
    unpacked_components,
    wheel_components,
)
from edgeai.imaging.tools import UNPACKED, Tools
from edgeai.imaging.tree import Tree
from edgeai.package.manifest import LICENCE_NAME
from edgeai.package.package import Package, file_digest
from edgeai.progress import Progress, silent

SUMS, SIGNATURE = "SHA256SUMS", "SHA256SUMS.sig"


@dataclass(frozen=True)
class Release:
    """One image's files in a folder."""

    plan: Plan
    version: str
    folder: Path
    url: str  # where the folder is published; names alone where it is empty

    def path(self, suffix: str) -> Path:
        """A file of this image."""
        return self.folder / f"{self.plan.name}{suffix}"

    def address(self, name: str) -> str:
        """Where a file will be found."""
        return f"{self.url.rstrip('/')}/{name}" if self.url else name


def publish(
    plan: Plan,
    built: Built,
    folder: Path,
    *,
    version: str,
    url: str = "",
    key: Ed25519PrivateKey | None = None,
    progress: Progress = silent,
) -> Release:
    """Write all files of an image into `folder`, and digests of all that is there; without a key nothing is signed."""
    folder.mkdir(parents=True, exist_ok=True)
    release = Release(plan, version, folder, url)
    packages = installed(built.models)
    compressed = compress(release, built.tools, built.disk)
    if key:
        write_update(release, built.system, key, progress)
    write_papers(release, built, components_of(plan, built, packages), packages, compressed)
    sign_sums(folder, key, {release.path(".img.xz").name: compressed})
    return release


def components_of(plan: Plan, built: Built, packages: Sequence[Package]) -> list[Component]:
    """All that an image is made of."""
    suite, tools = plan.base.suite, built.tools
    found = [*debian_components(Tree.from_tar(built.rootfs / ROOTFS_NAME), suite), *wheel_components(built.wheels)]
    found += [own_component(), *map(model_component, packages)]
    if built.firmware:
        names, root = built.firmware / UNPACKED, built.firmware / "package"
        found += unpacked_components(names, root, {FIRMWARE_PACKAGE, uboot.PACKAGE}, suite)
    else:
        loaders = GRUB_PACKAGES[plan.board.architecture]
        found += unpacked_components(tools.root.parent / UNPACKED, tools.root, loaders, suite)
    return found


def compress(release: Release, tools: Tools, image: Path) -> str:
    """Write `.img.xz`, whose digest is returned, and `.bmap` beside it, which is of the image before."""
    binds = {image.parent: "/in", release.folder: "/out"}
    threads = max(2, os.cpu_count() or 2)  # any number but one gives the same bytes
    tools.run(
        ["bash", "-c", f"xz -T{threads} -6 --block-size=16MiB -c /in/{image.name} >/out/{image.name}.xz"], binds=binds
    )
    tools.run(["bmaptool", "create", "-o", f"/out/{release.path('.bmap').name}", f"/in/{image.name}"], binds=binds)
    return file_digest(release.path(".img.xz"))


def write_update(release: Release, system: Path, key: Ed25519PrivateKey, progress: Progress = silent) -> None:
    """Write the system as the bundle that `edgeai update` takes: its root, and what its kernel starts from."""
    boot = {f"boot/{path.name}": path for path in (system / "boot").iterdir()}
    contents = Contents(
        kind="system",
        name=release.plan.name,
        version=release.version,
        files=boot | {ROOT_IMAGE: system / ROOT_IMAGE},
        metadata={"board": release.plan.board_name},
    )
    write_bundle(release.path(".bundle"), contents, [key], progress)


def write_papers(
    release: Release, built: Built, components: Sequence[Component], packages: Sequence[Package], compressed: str
) -> None:
    """Bill of materials, licences, notes and Imager's list; `compressed` is the digest of `.img.xz`."""
    digest = file_digest(built.disk)
    _json(release.path(".spdx.json"), document(release.plan, release.version, components, digest))
    release.path(".licences.txt").write_text(licences(packages), encoding="utf-8")
    _json(release.path(".imager.json"), imager_list(release, built.disk, digest, compressed))
    release.path(".md").write_text(notes(release, built, components, packages), encoding="utf-8")
    shutil.copy(release.plan.folder / "icon.svg", release.folder / "icon.svg")


def imager_list(release: Release, image: Path, digest: str, compressed: str) -> dict[str, Any]:
    """Raspberry Pi Imager's repository with this one image; digests of it and of `.img.xz`."""
    download = release.path(".img.xz")
    entry = release.plan.board.imager
    return {
        "os_list": [
            {
                "name": entry.name,
                "description": entry.description,
                "icon": release.address("icon.svg"),
                "url": release.address(download.name),
                "extract_size": image.stat().st_size,
                "extract_sha256": digest,
                "image_download_size": download.stat().st_size,
                "image_download_sha256": compressed,
                "release_date": release.plan.base.date.isoformat(),
                "init_format": "cloudinit",
                "devices": list(entry.devices),
            }
        ]
    }


def licences(packages: Sequence[Package]) -> str:
    """The licences of all models, whole."""
    parts = []
    for package in packages:
        head = f"{package.name}: {package.manifest.licence.spdx}"
        parts.append(f"{head}\n{'=' * len(head)}\n\n{(package.path / LICENCE_NAME).read_text(encoding='utf-8')}")
    return "\n\n".join(parts)


def notes(release: Release, built: Built, components: Sequence[Component], packages: Sequence[Package]) -> str:
    """The release notes, in Markdown: what it is, what is in it, how to check and write it."""
    plan, xz = release.plan, release.path(".img.xz")
    models = "".join(f"- {one.name}: {one.manifest.description} ({one.manifest.licence.spdx})\n" for one in packages)
    main = [one for one in components if one.name.startswith(("linux-image-", "python3.", "systemd", "onnxruntime"))]
    versions = "".join(f"| {one.name} | {one.version} |\n" for one in sorted(main, key=lambda one: one.name))
    listed = release.address(release.path(".imager.json").name)
    imager = f"    rpi-imager --repo {listed}\n" if release.url else ""
    return f"""# {plan.base.name} {release.version} for {plan.board.description}

{plan.board.imager.description}

| | |
|---|---|
| image | {built.disk.stat().st_size / 1e6:.0f} MB; the card needs at least that |
| download | {xz.stat().st_size / 1e6:.0f} MB |
| Debian packages | {sum(one.kind == "deb" for one in components)} |
| Python packages | {sum(one.kind == "pypi" for one in components)} |

Models:

{models}
| package | version |
|---|---|
{versions}
Check and write it:

    sha256sum --check --ignore-missing {SUMS}
    bmaptool copy {xz.name} /dev/sdX
{imager}
Raspberry Pi Imager's settings (name, Wi-Fi, keys) reach the card from its list (`--repo`), not by "Use custom".
{SUMS} is signed (Ed25519, {SIGNATURE}). `{release.path(".spdx.json").name}` lists every package with its licence,
`{release.path(".licences.txt").name}` has the models' licences.
"""


def sign_sums(folder: Path, key: Ed25519PrivateKey | None, known: Mapping[str, str]) -> None:
    """Write SHA256SUMS over all other files of a folder, and its signature where there is a key.

    `known`: digests that need not be taken once more, by name.
    """
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and path.name not in (SUMS, SIGNATURE))
    sums = "".join(f"{known.get(name) or file_digest(folder / name)}  {name}\n" for name in names).encode()
    (folder / SUMS).write_bytes(sums)
    (folder / SIGNATURE).unlink(missing_ok=True)
    if key:
        (folder / SIGNATURE).write_bytes(key.sign(sums))


def _json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
