"""Checks of systems on trial. Each finds the machine off, and leaves it to the next one."""

from __future__ import annotations

import json
import time

from boot_guest import (
    BREAK_OTHER,
    COPY_TO_OTHER,
    EMPTY_KERNEL,
    EMPTY_OWN_KERNEL,
    IGNORE_OTHER,
    SILENCE_OTHER,
    TRY_OTHER,
)
from boot_lab import Lab, ask_briefly, no_failed_units, require
from boot_machine import make_stick

IDLE_SECONDS = 60
LAST_WORDS = "boot-image-was-here"


def update(lab: Lab) -> None:
    """A newer system on a USB stick is installed, tried and found good; the same stick does not start it over."""
    machine = lab.machine
    lab.start_with_key()
    before = lab.status()["running"]
    lab.trust_publisher()
    machine.cut()
    stick = machine.work / "stick.img"
    make_stick(stick, [lab.update.bundle])
    lab.start(stick)
    started = time.monotonic()
    while lab.settled(within=900)["running"] == before:
        require(time.monotonic() < started + 1200 * machine.patience, "the system on the stick was not installed")
        time.sleep(5)
    lab.note("an update from a USB stick, seconds until it is the good system", round(time.monotonic() - started))
    said = json.loads(machine.run("edgeai update --status --json"))
    require(said["slots"][said["running"]] == lab.update.version, f"another version is running: {said}")
    ask_briefly(machine)
    time.sleep(IDLE_SECONDS)
    require(lab.settled(within=60)["running"] != before, "the stick's system was installed again")
    no_failed_units(machine)
    machine.run("sync")


def rollback(lab: Lab) -> None:
    """Systems that cannot start or never look at themselves are tried three times, one that never answers once.

    A sound one becomes good, and a good one whose kernel is gone gives way to the other. The log of an orderly end is
    kept.
    """
    machine = lab.machine
    lab.start_with_key()
    good = lab.status()["running"]
    machine.run(f"logger -p user.warning {LAST_WORDS}")
    for what, spoil in (
        ("whose kernel is empty", EMPTY_KERNEL),
        ("whose root is damaged", BREAK_OTHER),
        ("whose server never starts", SILENCE_OTHER),
        ("that never looks whether it is healthy", IGNORE_OTHER),
    ):
        status, seconds = tried(lab, spoil)
        require((status["running"], status["tries_left"]) == (good, 0), f"after one {what}: {status}")
        lab.note(f"a system {what}: seconds until the good one is back", seconds)
    require(LAST_WORDS in machine.run("cat /data/system/warnings.log"), "the log of an orderly end was not kept")
    status, _ = tried(lab, "true")
    require(status["running"] != good, f"after a sound one: {status}")
    lab.note("a sound system was found good", json.dumps(status))
    machine.run(EMPTY_OWN_KERNEL)
    status, seconds = after_restart(lab)
    require(status["running"] == good, f"after the good system's kernel was emptied: {status}")
    lab.note("a good system whose kernel is gone: seconds until the other one is the good one", seconds)
    machine.run("sync")


def tried(lab: Lab, spoil: str) -> tuple[dict[str, object], int]:
    """Copy the running system into the other slot, spoil it, have it tried; the slots in the end, and seconds."""
    machine = lab.machine
    machine.run(COPY_TO_OTHER, within=300)
    machine.run(spoil)
    machine.run(TRY_OTHER)
    return after_restart(lab)


def after_restart(lab: Lab) -> tuple[dict[str, object], int]:
    """Restart it, and wait until nothing is on trial; the slots then, and seconds."""
    machine = lab.machine
    started = time.monotonic()
    machine.restart(within=900)
    time.sleep(5)  # one that is on trial may start again
    status = lab.settled(within=900)
    return status, round(time.monotonic() - started)
