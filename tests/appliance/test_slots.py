"""Slots: trial, commit and rollback with both loaders, cut at every write."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeai.appliance.loader import Choice
from edgeai.appliance.slots import KERNEL, Slots, open_slots
from edgeai.errors import InvalidInput, StateDamaged
from tests.appliance.boot_folders import DISK, make_boot, running

LOADERS = ("grub", "uboot")


@pytest.fixture(params=LOADERS)
def boot(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return make_boot(tmp_path / "boot", request.param)


def content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_new_image_runs_a(boot: Path) -> None:
    slots = running(boot, "a")
    assert (slots.current(), slots.inactive()) == ("a", "b")
    status = slots.status()
    assert (status.running, status.good, status.trying, status.on_trial, status.failed) == ("a", "a", None, False, None)


def test_a_healthy_trial_is_committed_and_the_next_update_goes_back_to_a(boot: Path) -> None:
    running(boot, "a").try_once("b")
    assert running(boot, "a").status().trying == "b"
    tried = running(boot, "b")
    assert tried.status().on_trial
    tried.commit()
    assert tried.status().good == "b"
    assert tried.status().trying is None
    tried.try_once("a")
    running(boot, "a").commit()
    assert running(boot, "a").loader.read().good == "a"


def test_a_trial_that_is_not_committed_leaves_the_good_slot(boot: Path) -> None:
    running(boot, "a").try_once("b")
    back = running(boot, "a")
    back.commit()
    assert back.status().good == "a"
    assert not back.status().on_trial


def test_commit_of_a_good_system_writes_nothing(boot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running(boot, "a").try_once("b")
    before = content(boot)
    monkeypatch.setattr(os, "pwrite", None)
    running(boot, "a").commit()
    assert content(boot) == before


def test_what_cannot_be_tried_is_refused(boot: Path) -> None:
    with pytest.raises(InvalidInput, match="slot a is running"):
        running(boot, "a").try_once("a")
    with pytest.raises(InvalidInput, match="slot b is on trial itself"):
        running(boot, "b").try_once("a")
    (boot / "b" / KERNEL).unlink()
    with pytest.raises(InvalidInput, match="slot b has no system"):
        running(boot, "a").try_once("b")


@pytest.mark.parametrize(
    ("change", "slot", "before", "after"),
    [
        (lambda slots: slots.try_once("b"), "a", ("a", None), ("a", "b")),
        (lambda slots: slots.commit(), "b", ("a", "b"), ("b", None)),
    ],
)
def test_a_change_is_one_write_of_one_sector(
    boot: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Slots], None],
    slot: str,
    before: object,
    after: object,
) -> None:
    """What a cut leaves is a prefix of the writes, sectors being whole: so the old state or the new one.

    The first write changes the state; U-Boot's second one is of its copy.
    """
    if slot == "b":
        running(boot, "a").try_once("b")
    seen: list[object] = []
    pwrite, fsync = os.pwrite, os.fsync

    def state() -> tuple[str, str | None]:
        choice = running(boot, "a").loader.read()
        return choice.good, choice.trying

    def noting_write(descriptor: int, data: bytes, offset: int) -> int:
        assert (offset % 512, len(data)) == (0, 512)
        seen.append(state())
        written = pwrite(descriptor, data, offset)
        seen.append(state())
        return written

    def noting_sync(descriptor: int) -> None:
        seen.append("synced")
        fsync(descriptor)

    names = sorted(content(boot))
    slots = running(boot, "a") if slot == "a" else running(boot, "b")
    monkeypatch.setattr(os, "pwrite", noting_write)
    monkeypatch.setattr(os, "fsync", noting_sync)
    change(slots)
    copied = [after, after, "synced"] if (boot / DISK).exists() else []
    assert seen == [before, after, "synced", *copied]
    assert sorted(content(boot)) == names


def test_a_write_that_fails_changes_nothing(boot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = content(boot)

    def failing(descriptor: int, data: bytes, offset: int) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "pwrite", failing)
    with pytest.raises(OSError, match="Input/output"):
        running(boot, "a").try_once("b")
    assert content(boot) == before


CHANGING = """
import sys
from pathlib import Path
from tests.appliance.boot_folders import running
boot = Path(sys.argv[1])
print("going", flush=True)
while True:
    running(boot, "a").try_once("b")
    running(boot, "b").commit()
    running(boot, "b").try_once("a")
    running(boot, "a").commit()
"""


def test_killed_at_any_moment_it_can_be_read(boot: Path) -> None:
    for attempt in range(5):
        command = [sys.executable, "-c", CHANGING, str(boot)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as child:
            assert child.stdout is not None
            assert child.stdout.readline()
            time.sleep(attempt * 0.003)
            child.send_signal(signal.SIGKILL)
        good = running(boot, "a").loader.read().good
        running(boot, good).commit()
        if good == "b":  # the child begins with a
            running(boot, "b").try_once("a")
            running(boot, "a").commit()


def test_grub_counts_and_tells_what_failed(tmp_path: Path) -> None:
    boot = make_boot(tmp_path / "boot", "grub")
    running(boot, "a").try_once("b")
    assert running(boot, "a").loader.read() == Choice("a", "b", 3)
    environment = boot / "grub" / "grubenv"
    environment.write_bytes(environment.read_bytes().replace(b"tries=3", b"tries=0"))  # as grub.cfg does
    assert running(boot, "a").status().failed == "b"


def test_damaged_files_are_named(boot: Path) -> None:
    for path in [*boot.glob("*.img"), *boot.glob("grub/*")]:
        path.write_bytes(b"")
    with pytest.raises(StateDamaged, match=r"grubenv|disk\.img"):
        running(boot, "a").status()


def test_other_machines_have_no_slots(tmp_path: Path) -> None:
    command_line = tmp_path / "cmdline"
    command_line.write_text("root=/dev/sda1 quiet\n")
    with pytest.raises(InvalidInput, match="no slots"):
        open_slots(tmp_path, command_line)
    command_line.write_text("edgeai.slot=a\n")
    with pytest.raises(StateDamaged, match="no boot loader's files"):
        open_slots(tmp_path, command_line)
    make_boot(tmp_path / "boot", "grub")
    command_line.write_text("edgeai.slot=c\n")
    with pytest.raises(StateDamaged, match="names slot 'c'"):
        open_slots(tmp_path / "boot", command_line)


def test_a_trial_that_is_given_up_is_not_tried_again(boot: Path) -> None:
    running(boot, "a").try_once("b")
    running(boot, "b").give_up()
    status = running(boot, "a").status()
    assert (status.good, status.tries_left) == ("a", 0)
    before = content(boot)
    running(boot, "a").give_up()
    assert content(boot) == before
