"""Debian's packages installed into a root of their own, as a tar: by mmdebstrap, and QEMU for other processors.

The initial RAM disk is made here too, by the kernel package's scripts, from `etc/initramfs-tools` of the overlay.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from edgeai.imaging.plan import Plan
from edgeai.imaging.stages import Stages, tree_digest
from edgeai.imaging.tools import Tools, proxy_settings
from edgeai.progress import Progress

ROOTFS_NAME = "rootfs.tar"
LOG_NAME = "mmdebstrap.log"
INITRAMFS_FOLDER = "etc/initramfs-tools"
_OUT, _INITRAMFS, _MODULES = "/out", "/initramfs-tools", "/modules"
_SIGNED = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"


def make_rootfs(stages: Stages, plan: Plan, tools: Tools) -> Path:
    """The folder with `rootfs.tar`, and the log of how it was made. Boards that ask for the same share it.

    Mirrors change: a cached root has the packages of the day it was made on. Raises `ProgramFailed`.
    """
    settings = plan.folder / "overlay" / INITRAMFS_FOLDER
    inputs = {
        "command": mmdebstrap_command(plan, "MIRROR", "SECURITY"),
        "date": plan.base.epoch,
        "modules": plan.initramfs_modules,
        "initramfs": tree_digest(settings),
        "tools": tools.root.parent.name,
    }
    return stages.make(
        f"rootfs-{plan.board.architecture}",
        inputs,
        lambda folder: _make(folder, plan, tools, settings, stages.progress),
    )


def mmdebstrap_command(plan: Plan, mirror: str, security: str) -> list[str]:
    """How mmdebstrap is called, from inside of the tools' root."""
    options = [
        *("--mode=root", f"--arch={plan.board.architecture}", "--variant=essential"),
        *(f"--aptopt={line}" for line in ('APT::Install-Recommends "false"', 'Acquire::Languages "none"')),
        '--aptopt=APT::Sandbox::User "root"',
        *(f"--dpkgopt={option}" for option in ("force-unsafe-io", "force-confold", "force-confdef")),
        *(f"--dpkgopt={_path_option(pattern)}" for pattern in plan.base.exclude),
        f"--include={','.join(plan.packages)}",
    ]
    return ["mmdebstrap", *options, *_hooks(), "", f"{_OUT}/{ROOTFS_NAME}", *debian_sources(plan, mirror, security)]


def debian_sources(plan: Plan, mirror: str, security: str) -> list[str]:
    """Lines of sources.list: the release, its updates and security; backports where a package is from there."""
    suite, components = plan.base.suite, " ".join(plan.base.components)
    suites = [suite, f"{suite}-updates"]
    suites += sorted({name.partition("/")[2] for name in plan.packages if "/" in name})
    lines = [f"deb {_SIGNED} {mirror} {name} {components}" for name in suites]
    return [*lines, f"deb {_SIGNED} {security} {suite}-security {components}"]


def _path_option(pattern: str) -> str:
    return f"path-include={pattern[1:]}" if pattern.startswith("!") else f"path-exclude={pattern}"


def _hooks() -> list[str]:
    """The initial RAM disk's settings are there before the kernel's scripts make it, which is once enough."""
    etc = '"$1"/etc/initramfs-tools'
    return [
        f"--setup-hook=mkdir -p {etc} && cp -r {_INITRAMFS}/. {etc}/ && cat {_MODULES} >>{etc}/modules",
        f"--setup-hook=echo update_initramfs=no >{etc}/update-initramfs.conf",
    ]


@dataclass
class PackageCount:
    """Counts what apt and dpkg say into a progress: each package is unpacked and then set up."""

    progress: Progress
    total: int = 0
    done: int = 0

    def __call__(self, line: str) -> None:
        """Hear one line."""
        if match := re.search(r"(\d+) newly installed", line):
            self.total += 2 * int(match[1])
        elif line.startswith(("Unpacking ", "Setting up ")) and self.done < self.total:
            self.done += 1
            self.progress("packages unpacked and set up", self.done, self.total)


def _make(folder: Path, plan: Plan, tools: Tools, settings: Path, progress: Progress) -> None:
    modules = folder / "modules"
    modules.write_text("".join(f"{name}\n" for name in plan.initramfs_modules))
    empty = folder / "no-settings"
    empty.mkdir()
    command = mmdebstrap_command(plan, tools.mirror, tools.security)
    proxies = [f"--aptopt={line}" for line in proxy_settings()]
    said = tools.run(
        [command[0], *proxies, *command[1:]],
        binds={folder: _OUT, modules: _MODULES, (settings if settings.is_dir() else empty): _INITRAMFS},
        environment={"SOURCE_DATE_EPOCH": str(plan.base.epoch)},
        heard=PackageCount(progress),
    )
    (folder / LOG_NAME).write_text(said, encoding="utf-8")
    modules.unlink()
    empty.rmdir()
