"""U-Boot of a Raspberry Pi, seen from outside: the card is prepared here, and it and the console tell what happened."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from boot_lab import Lab, require
from boot_machine import partition
from boot_system import extract_root

from edgeai.appliance.loader import TRIES, Choice
from edgeai.appliance.uboot import UBoot

COMMAND_LINE = "cmdline.env"
_STARTED = re.compile(r"edgeai: starting slot ([ab])")


def try_b(disk: Path, work: Path, *, whole: bool) -> None:
    """Put slot a's system into slot b of a new card, and have it tried; not `whole`: no initial RAM disk."""
    start, _ = partition(disk, 1)
    fat = ["-i", f"{disk}@@{start}"]
    slot = work / "slot"
    subprocess.run(["mcopy", "-s", "-n", *fat, "::a", str(slot)], check=True)
    line = (slot / COMMAND_LINE).read_text()
    if not whole:
        (slot / "initrd.img").write_text("none")
        line = line.replace("panic=10", "panic=-1")  # ten seconds that a kernel counts itself take QEMU minutes
    (slot / COMMAND_LINE).write_text(re.sub("(root=\\S+)-02", "\\1-03", line).replace("slot=a", "slot=b"))
    subprocess.run(["mcopy", "-o", *fat, *map(str, slot.iterdir()), "::b/"], check=True)
    shutil.rmtree(slot)
    if whole:
        root = extract_root(disk, work / "root.erofs")
        with disk.open("r+b") as file, root.open("rb") as source:
            file.seek(partition(disk, 3)[0])
            shutil.copyfileobj(source, file)
        root.unlink()
    UBoot(disk).set_trial("b")


def rollback(lab: Lab) -> None:
    """A system in slot b whose kernel panics at once is started three times, then a again, which gets ready."""
    machine = lab.machine
    machine.fresh_card()
    try_b(machine.disk, machine.work, whole=False)
    machine.start()
    await_that(lab, lambda: len(started(machine.work)) > TRIES, 1200)
    slots, told = started(machine.work), UBoot(machine.disk).read()
    require(slots == ["b"] * TRIES + ["a"], f"U-Boot started {slots}")
    require(told == Choice("a", "b", 0), f"U-Boot is told {told}")
    lab.note("a kernel without an initial RAM disk: what U-Boot started", ", ".join(slots))
    lab.note("seconds from switching on to ready after that", round(machine.ready_after(within=1800)))


def commit(lab: Lab) -> None:
    """A sound system in slot b is started, and makes itself the good one on the card."""
    machine = lab.machine
    machine.fresh_card()
    try_b(machine.disk, machine.work, whole=True)
    machine.start()
    await_that(lab, lambda: UBoot(machine.disk).read() == Choice("b"), 900)
    require(started(machine.work) == ["b"], f"U-Boot started {started(machine.work)}")
    lab.note("a sound system: seconds until it is good", round(time.monotonic() - machine.started))


def started(work: Path) -> list[str]:
    """The slots that U-Boot has started since the machine was switched on, by its console."""
    console = work / "serial.log"  # QEMU makes it
    return _STARTED.findall(console.read_text(errors="replace")) if console.exists() else []


def await_that(lab: Lab, holds: Callable[[], bool], within: float) -> None:
    """Wait until something holds. Raises RuntimeError."""
    machine = lab.machine
    deadline = time.monotonic() + within * machine.patience
    while not holds():
        require(machine.process is not None and machine.process.poll() is None, "QEMU has ended")
        require(time.monotonic() < deadline, f"it did not come; U-Boot started {started(machine.work)}")
        time.sleep(1)


UBOOT_CHECKS: dict[str, Callable[[Lab], None]] = {"u-boot-rollback": rollback, "u-boot-commit": commit}
