"""What the boot partition holds: the loader, and for slot a the kernel with all that it starts from.

    a/ b/          vmlinuz, initrd.img and the command line as the loader reads it; b/ waits for the first update
    config.txt     Raspberry Pi: the firmware's settings. It loads a device tree and starts U-Boot (`uboot.py`)
    EFI/BOOT/      elsewhere: GRUB for UEFI; grub/ has its configuration and the block it counts in

The files that people edit (`user-data`, `edgeai.toml` and so on) come from `images/boot/`.
"""

from __future__ import annotations

import fnmatch
import json
import shutil
from pathlib import Path
from typing import Literal

from edgeai.appliance import uboot
from edgeai.appliance.grub import ENVIRONMENT, Grub, new_environment
from edgeai.appliance.loader import Loader
from edgeai.appliance.slots import RELEASE
from edgeai.errors import NotFound
from edgeai.imaging.plan import SECTOR, Plan
from edgeai.imaging.schema import Firmware
from edgeai.imaging.stages import Stages
from edgeai.imaging.tools import Tools, download_packages, note_packages, unpack
from edgeai.imaging.tree import Tree
from edgeai.imaging.uboot import BINARY, uboot_files
from edgeai.imaging.uboot import PACKAGE as UBOOT_PACKAGE

FIRST_SLOT: Literal["a"] = "a"
_FIND_CONFIGURATION = """search --no-floppy --label {label} --set=root
set prefix=($root)/grub
configfile ($root)/grub/grub.cfg
"""
_GRUB_MODULES = (
    *("part_msdos", "fat", "search", "search_label", "configfile", "normal", "linux", "loadenv"),
    *("test", "echo", "sleep", "reboot"),
)
GRUB_PACKAGES = {"amd64": ("grub-efi-amd64-bin", "grub-pc-bin"), "arm64": ("grub-efi-arm64-bin",)}
_EFI: dict[str, tuple[tuple[str, str], ...]] = {  # GRUB's formats and UEFI's removable paths
    "amd64": (("x86_64-efi", "BOOTX64.EFI"),),
    "arm64": (("arm64-efi", "BOOTAA64.EFI"),),
}
FIRMWARE_PACKAGE = "raspi-firmware"
CONFIG = "config.txt"


def slot_files(plan: Plan, root: Tree, folder: Path) -> None:
    """Write kernel, initrd and command line of a system into `folder`, out of its root.

    The command line is a template: an update puts slot and root in. Raises `NotFound` for what the root lacks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _write(root, "boot/vmlinuz-*", folder / "vmlinuz")
    _write(root, "boot/initrd.img-*", folder / "initrd.img")
    _command_line(plan, plan.command_line_template, folder)


def device_trees(plan: Plan, root: Tree, folder: Path) -> None:
    """Write the device trees that the board's firmware chooses from. Raises `NotFound` for what the root lacks."""
    folder.mkdir()
    for pattern in plan.board.device_trees:
        # Debian's kernels have them below /usr/lib, newer ones beside their modules.
        places = (f"usr/lib/linux-image-*/{pattern}", f"usr/lib/modules/*/dtb/{pattern}")
        found = [path for path, _ in root.files() if any(fnmatch.fnmatch(path, place) for place in places)]
        if not found:
            raise NotFound(
                f"the root has no device tree {pattern}", "see device_trees of the board", param="device tree"
            )
        for path in found:
            (folder / Path(path).name).write_bytes(root.entries[path].read())


def firmware_files(stages: Stages, plan: Plan, tools: Tools) -> Path | None:
    """The folder with what starts a Raspberry Pi, out of Debian's packages; None for other machines."""
    firmware = plan.board.firmware
    if firmware is None:
        return None
    inputs = {
        "suite": plan.base.suite,
        "packages": [FIRMWARE_PACKAGE, UBOOT_PACKAGE],
        "firmware": firmware.model_dump(mode="json"),
    }

    def make(folder: Path) -> None:
        source = f"{tools.mirror} {plan.base.suite} main non-free-firmware"
        wanted = [FIRMWARE_PACKAGE, f"{UBOOT_PACKAGE}:{plan.board.architecture}"]
        packages = download_packages(folder, [source], wanted, alone=True)
        for package in packages:
            unpack(package, folder / "package")
        note_packages(folder, packages)
        shutil.rmtree(folder / "apt")

    return stages.make("firmware", inputs, make)


def fill_slot(plan: Plan, files: Path, boot: Path, version: str) -> None:
    """Copy a system's files into the first slot of the boot partition, as an update does into the other one."""
    slot = boot / FIRST_SLOT
    shutil.copytree(files, slot)
    _command_line(plan, plan.command_line(FIRST_SLOT), slot)
    release = {"board": plan.board_name, "version": version}  # says that the slot is whole
    (slot / RELEASE).write_text(json.dumps(release) + "\n", encoding="ascii")


def loader_files(plan: Plan, tools: Tools, boot: Path, firmware: Path | None, trees: Path) -> None:
    """Write the boot loader and its settings into the boot partition's folder; `trees` has the device trees."""
    for name in ("a", "b"):
        (boot / name).mkdir(exist_ok=True)
    people = plan.folder / "boot" / "people"
    if people.is_dir():
        shutil.copytree(people, boot, dirs_exist_ok=True)
    if firmware:
        _raspberry(plan, firmware / "package", boot)
        shutil.copytree(trees, boot, dirs_exist_ok=True)
    else:
        _grub(plan, tools, boot)


def disk_front(plan: Plan, tools: Tools, folder: Path) -> dict[int, bytes]:
    """What lies in front of the partitions, by its offset: U-Boot's state, or GRUB for BIOSes."""
    if plan.board.loader == "raspberrypi":
        return uboot.new_state(FIRST_SLOT)
    if plan.board.architecture != "amd64":
        return {}
    _mkimage(plan, tools, folder, "i386-pc", "core.img", ("biosdisk",))
    boot = bytearray((tools.root / "usr/lib/grub/i386-pc/boot.img").read_bytes()[:440])
    boot[0x66:0x68] = b"\x90\x90"  # as grub-bios-setup does for disks: do not take the BIOS's word for a floppy
    return {0: bytes(boot), SECTOR: (folder / "core.img").read_bytes()}


def _grub(plan: Plan, tools: Tools, boot: Path) -> None:
    (boot / "grub").mkdir(exist_ok=True)
    shutil.copy(plan.folder / "boot" / "grub.cfg", boot / "grub" / "grub.cfg")
    (boot / ENVIRONMENT).write_bytes(new_environment())
    efi = boot / "EFI" / "BOOT"
    efi.mkdir(parents=True)
    for target, name in _EFI[plan.board.architecture]:
        _mkimage(plan, tools, efi, target, name, ())


def _mkimage(plan: Plan, tools: Tools, folder: Path, target: str, name: str, further: tuple[str, ...]) -> None:
    """GRUB's core with all modules it needs and a first command: find the boot partition by its label."""
    config = folder / "first.cfg"
    config.write_text(_FIND_CONFIGURATION.format(label=plan.partitions["boot"].label), encoding="ascii")
    command = ["grub-mkimage", "-O", target, "-d", f"/usr/lib/grub/{target}", "-p", "/grub", "-c", "/out/first.cfg"]
    tools.run([*command, "-o", f"/out/{name}", *_GRUB_MODULES, *further], binds={folder: "/out"})
    config.unlink()


def _raspberry(plan: Plan, package: Path, boot: Path) -> None:
    firmware = plan.board.firmware or Firmware()
    for pattern in firmware.files:
        found = sorted((package / firmware.folder.lstrip("/")).glob(pattern))
        if not found:
            raise NotFound(f"{FIRMWARE_PACKAGE} has no {pattern}", "see [firmware] of the board", param="firmware")
        for path in found:
            shutil.copy(path, boot / path.name)
    lines = ["# Settings of the board: https://www.raspberrypi.com/documentation/computers/config_txt.html"]
    lines += ["arm_64bit=1", f"kernel={BINARY}", "upstream_kernel=1"]
    lines += [f"{key}={value}" for key, value in firmware.config.items()]
    (boot / CONFIG).write_text("".join(f"{line}\n" for line in lines), encoding="ascii")
    uboot_files(plan, package, boot)


def _command_line(plan: Plan, text: str, folder: Path) -> None:
    loader: type[Loader] = uboot.UBoot if plan.board.loader == "raspberrypi" else Grub
    name, content = loader.command_line_file(text)
    (folder / name).write_bytes(content)


def _write(root: Tree, pattern: str, target: Path) -> None:
    found = fnmatch.filter((path for path, _ in root.files()), pattern)
    if len(found) != 1:
        raise NotFound(f"the root has {len(found)} files {pattern}: one was expected", param="kernel")
    with root.entries[found[0]].open() as source:
        target.write_bytes(source.read(root.entries[found[0]].info.size))
