"""The two systems of a card, slots a and b: which one runs, which one starts next, and which one is good.

What the boot loader itself reads from the disk is the only truth, so nothing can disagree with it. Each change is one
write of one disk sector: a power cut leaves the old state or the new one.

    try_once(b), reboot ──► b runs and is healthy ──► commit(): b is good
                       └──► b fails (give_up()), or the power does too often ──► a, which still is good, starts again
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from edgeai.appliance.card import disk_of
from edgeai.appliance.grub import Grub
from edgeai.appliance.loader import Loader, Slot, as_slot, other
from edgeai.appliance.uboot import SCRIPT, UBoot
from edgeai.errors import InvalidInput, StateDamaged

BOOT_FOLDER = Path("/boot/firmware")  # where a board has its boot partition, read-only but for updates
COMMAND_LINE = Path("/proc/cmdline")
KERNEL, RELEASE = "vmlinuz", "release.json"  # in each slot's folder; the latter says that all of a system is there
_RUNNING = re.compile(r"(?:^|\s)edgeai\.slot=(\S*)")


@dataclass(frozen=True, slots=True)
class SlotStatus:
    """The state of both slots."""

    running: Slot
    good: Slot
    trying: Slot | None
    tries_left: int | None

    @property
    def on_trial(self) -> bool:
        """Whether the running system still has to prove itself."""
        return self.running != self.good

    @property
    def failed(self) -> Slot | None:
        """The slot that was tried in vain."""
        return self.trying if not self.on_trial and self.tries_left == 0 else None


@dataclass(frozen=True, slots=True)
class Slots:
    """The slots of one board. `boot` is the mounted boot partition; changes need it writable."""

    boot: Path
    loader: Loader
    running: Slot

    def current(self) -> Slot:
        """The slot whose system is running."""
        return self.running

    def inactive(self) -> Slot:
        """The other one, which an update may write to."""
        return other(self.running)

    def folder(self, slot: Slot) -> Path:
        """Where a slot's kernel and its companions are."""
        return self.boot / slot

    def status(self) -> SlotStatus:
        """What runs and what will. Raises `StateDamaged`."""
        choice = self.loader.read()
        return SlotStatus(self.running, choice.good, choice.trying, choice.tries_left)

    def try_once(self, slot: Slot) -> None:
        """Let the next start be of `slot`, with the good one behind it.

        Raises `InvalidInput` for the running slot and for one without a system, `StateDamaged`.
        """
        if slot == self.running:
            raise InvalidInput(f"slot {slot} is running", f"try the other one, {self.inactive()}")
        if self.status().on_trial:
            raise InvalidInput(f"slot {self.running} is on trial itself", "wait until it is found healthy")
        if not (self.folder(slot) / KERNEL).is_file():
            raise InvalidInput(f"slot {slot} has no system to start", "install an update first")
        self.loader.set_trial(slot)

    def commit(self) -> None:
        """The running system is good. It changes nothing if it was. Raises `StateDamaged`."""
        if self.status().on_trial:
            self.loader.set_good(self.running)

    def give_up(self) -> None:
        """The running system failed its trial and is not tried again. It changes nothing for a good one."""
        if self.status().on_trial:
            self.loader.end_trial()


def open_slots(boot: Path = BOOT_FOLDER, command_line: Path = COMMAND_LINE, disk: Path | None = None) -> Slots:
    """The slots of this board; `disk` is the one that `boot` is mounted from, unless it is another.

    Raises `InvalidInput` where there are none: on machines that no image was written to; `StateDamaged`.
    """
    found = _RUNNING.search(command_line.read_text())
    if found is None:
        raise InvalidInput("this machine has no slots", "it was not started from an image of edgeai")
    if Grub(boot).environment.exists():
        return Slots(boot, Grub(boot), as_slot(found[1], command_line))
    if (boot / SCRIPT).exists():
        return Slots(boot, UBoot(disk or disk_of(boot)), as_slot(found[1], command_line))
    raise StateDamaged(f"{boot} has no boot loader's files", "is the boot partition mounted?")
