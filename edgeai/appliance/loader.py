"""What a boot loader is told: a slot that is good, and perhaps one to try before it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, get_args

from edgeai.errors import StateDamaged

Slot = Literal["a", "b"]
SLOTS: tuple[Slot, ...] = get_args(Slot)
TRIES = 3  # the power may fail during a trial as well: one start is too few to blame the system for


@dataclass(frozen=True, slots=True)
class Choice:
    """What a boot loader is told: `trying` starts before `good`, `tries_left` times; with none left it has failed."""

    good: Slot
    trying: Slot | None = None
    tries_left: int | None = None


class Loader(Protocol):
    """What one boot loader reads."""

    @staticmethod
    def command_line_file(command_line: str) -> tuple[str, bytes]:
        """Name and content of the file in a slot's folder from which the kernel gets this command line."""

    def read(self) -> Choice:
        """What it is told. Raises `StateDamaged` for what cannot be read as it is."""

    def set_trial(self, slot: Slot) -> None:
        """Start `slot` at most `TRIES` times, before the good one again."""

    def end_trial(self) -> None:
        """Try nothing any more, and remember what was tried in vain."""

    def set_good(self, slot: Slot) -> None:
        """Start `slot` from now on, and try none."""


def other(slot: Slot) -> Slot:
    """The slot that `slot` is not."""
    return "b" if slot == "a" else "a"


def as_slot(text: str, where: Path) -> Slot:
    """`text` as a slot. Raises `StateDamaged`, naming the file it stands in."""
    if text not in SLOTS:
        raise StateDamaged(f"{where} names slot {text!r}", "a slot is a or b")
    return text


def parse_choice(good: str, trying: str | None, tries: str, where: Path) -> Choice:
    """A choice from a loader's texts; `trying` is None where nothing is tried. Raises `StateDamaged`, naming it."""
    if not tries.isdecimal():
        raise StateDamaged(f"{where} has tries={tries}", "it is to be a number")
    slot = as_slot(good, where)
    return Choice(slot) if trying is None else Choice(slot, as_slot(trying, where), int(tries))
