"""What is proved of an image by booting it. Each check finds the machine off, and leaves it off or to the next one."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from boot_control import control
from boot_cuts import power_cuts
from boot_guest import (
    ACCESS_POINT,
    ADD_RADIOS,
    ASIDE,
    ATTEMPTS,
    BREAK_OTHER,
    COPY_TO_OTHER,
    EMPTY_KERNEL,
    EMPTY_OWN_KERNEL,
    FORGET_TWIN,
    IGNORE_OTHER,
    JOIN,
    REMOVE_RADIOS,
    SETUP_PAGE,
    SILENCE_OTHER,
    STATUS,
    TELL_WIFI,
    TOLD_WIFI,
    TRY_OTHER,
    in_background,
)
from boot_lab import Lab, ask, ask_briefly, no_failed_units, require
from boot_machine import HOST, MAC, Machine, make_stick, write_to_boot
from boot_mirror import serving
from boot_silence import sent

IDLE_SECONDS = 60
UNPLUGGED_SECONDS = 60
LAST_WORDS = "boot-image-was-here"
SETTLE_SECONDS = 60
MEASURED_SECONDS = 300
DAY_SECONDS = 86_400
ANSWERS = 10
STALLED_NOTE = "/data/stalled"
STALLED_SECONDS = 900
GIVEN_UP = "hung_task: blocked tasks"


def first_start(lab: Lab) -> None:
    """A card as it was written: it gets ready, lets nobody in without a key, and not by SSH."""
    lab.machine.start()
    lab.note("first start, seconds to ready", round(lab.machine.ready_after(), 1))
    require(lab.machine.status("/v1/models") == 401, "the API answers without a key")
    require(not lab.machine.lets_in("ssh"), "SSH answers although no key was given")


def answer(lab: Lab) -> None:
    """The system as it should be, seen from inside, and an answer."""
    machine = lab.machine
    lab.start_with_key()
    lab.note("later start, seconds to ready", round(time.monotonic() - machine.started, 1))
    lab.note("answer", ask(machine).replace("\n", " ")[:100])
    memory = dict(line.split(":") for line in machine.run("cat /proc/meminfo").splitlines())
    for name in ("MemTotal", "MemAvailable"):
        lab.note(f"{name} after an answer, MiB", int(memory[name].split()[0]) // 1024)
    no_failed_units(machine)
    mounts = machine.run("cat /proc/mounts /proc/swaps")
    require(" / erofs ro" in mounts, f"the root is not read-only: {mounts}")
    require("/dev/zram0" in mounts, f"there is no swap in memory: {mounts}")
    size = int(machine.run("df -B1 --output=size /data | tail -n1"))
    lab.note("data partition, of the card's bytes", f"{size} of {machine.disk.stat().st_size}")
    require(size > 0.6 * machine.disk.stat().st_size, "the data partition did not grow")
    before = written(machine)
    lab.note("bytes written since the start", before)
    for _ in range(ANSWERS):
        ask_briefly(machine)
    machine.run("sync")
    lab.note(f"bytes written by {ANSWERS} further short answers", written(machine) - before)
    lab.note("host name", machine.run("uname -n").strip())
    lab.note("slots", machine.run(STATUS).strip())


def written(machine: Machine) -> int:
    """Bytes that the machine wrote to its card since it started."""
    return (
        int(machine.run("cat /sys/class/block/vda/stat /sys/class/block/mmcblk0/stat 2>/dev/null || true").split()[6])
        * 512
    )


def silence(lab: Lab) -> None:
    """Nothing leaves the machine but answers, its name and its request for an address; nor can it."""
    machine = lab.machine
    earlier = len(machine.captures)
    lab.start_with_key()
    came_through = machine.run(f"python3 - <<'END'\n{ATTEMPTS}\nEND")
    require(not came_through.strip(), f"the firewall let through: {came_through}")
    time.sleep(IDLE_SECONDS)
    machine.cut()
    allowed, others = sent(machine.captures[earlier:], MAC)
    lab.note("frames sent", dict(allowed))
    require(allowed["DHCP"] > 0, "the capture is empty: not even an address was asked for")
    require(not others, f"sent without being asked: {dict(others)}")


def writes(lab: Lab) -> None:
    """What a day costs the card, from some minutes of it: idle, and answering one client after the other."""
    machine = lab.machine
    lab.start_with_key()
    time.sleep(SETTLE_SECONDS)
    idle = written_during(machine, lambda: time.sleep(MEASURED_SECONDS))
    hourly = written_during(machine, lambda: machine.run("systemctl start edgeai-hourly.service"))
    started, answers = time.monotonic(), 0

    def serve() -> None:
        nonlocal answers
        while time.monotonic() < started + MEASURED_SECONDS:
            ask(machine, f"Tell me something about the number {answers}.")
            answers += 1

    started = time.monotonic()
    busy = written_during(machine, serve)
    times = DAY_SECONDS / MEASURED_SECONDS
    lab.note("written in a day of doing nothing, MB", round((idle * times + hourly * 24) / 1e6, 1))
    lab.note(
        f"written in a day of answers without a pause, MB ({answers} in {MEASURED_SECONDS} s)",
        round((busy * times + hourly * 24) / 1e6, 1),
    )


def written_during(machine: Machine, action: Callable[[], object]) -> int:
    """Bytes that the machine writes to its card while something happens, down to the card."""
    machine.run("sync")
    before = written(machine)
    action()
    machine.run("sync")
    return written(machine) - before


def access_point(lab: Lab) -> None:
    """An access point that was asked for, on simulated radios: a client joins, gets an address, reaches the server."""
    machine = lab.machine
    lab.start_with_key(network_config=ACCESS_POINT)
    seen = machine.run(JOIN, within=300)
    require("offered 10.42.0." in seen, f"no address was offered: {seen}")
    require('{"status":"ok"}' in seen, f"the server was not reached over Wi-Fi: {seen}")
    lab.note("access point", seen.strip().replace("\n", ", "))
    machine.run("sync")
    machine.cut()
    write_to_boot(machine.disk, {"network-config": "# nothing\n"})


def setup_page(lab: Lab) -> None:
    """No cable, no Wi-Fi: the set-up page is told one with a wrong password; the board gives it up, and asks again."""
    machine = lab.machine
    lab.start_with_key()
    machine.run(ADD_RADIOS)
    machine.cut()
    seconds = lab.start()
    script = machine.work / "tell-wifi"
    script.write_text(TELL_WIFI)
    machine.send(script, "/data/tell-wifi")
    machine.run(in_background("sh /data/tell-wifi", "told"))
    with control(machine.work) as qemu:
        qemu.plug(cable=False)
        unplugged = time.monotonic()
        qemu.await_resets(2, 600 * machine.patience)  # to join what it was told, and to ask again
        lab.note("a Wi-Fi that cannot be joined: seconds until it is given up", round(time.monotonic() - unplugged))
        time.sleep(2 * seconds + UNPLUGGED_SECONDS)  # nobody can ask it what it does without a cable
        qemu.plug(cable=True)
    machine.await_ssh()
    log = machine.run("cat /data/told.log")
    require("offered 10.42.0." in log and "Saved." in log, f"the set-up page was told: {log}")
    notes = machine.run("cat /run/edgeai/notes")
    require(f"{TOLD_WIFI!r} could not be joined" in notes, f"the screen says: {notes}")
    shown = machine.run(SETUP_PAGE)
    require("could not be joined" in shown and "<form" in shown, f"the set-up page says: {shown}")
    machine.run(f"rm -rf /data/tell-wifi /data/told* /data/system/given-up; {REMOVE_RADIOS}")


def usb_stick(lab: Lab) -> None:
    """A model in a signed bundle on a USB stick is installed at a start of a board that has none."""
    machine = lab.machine
    lab.start_with_key()
    lab.trust_publisher()
    bundle = lab.model
    machine.run(f"set -e; cd /; {FORGET_TWIN}; mkdir {ASIDE}; mv /data/edgeai/models/* {ASIDE}; sync")
    machine.cut()
    stick = machine.work / "stick.img"
    make_stick(stick, [bundle])
    lab.note("USB stick, seconds from switching on to ready with its model", round(lab.start(stick, within=400), 1))
    ask_briefly(machine)
    machine.run("sync")
    notes = machine.run("cat /run/edgeai/notes")
    require(f"{bundle.name}: installed" in notes, f"the screen says: {notes}")
    machine.run(f"set -e; cd /; {FORGET_TWIN}; mv {ASIDE}/* /data/edgeai/models; rmdir {ASIDE}; sync")


def network(lab: Lab) -> None:
    """A model comes over the network when root asks for it; nothing else is let out, then or later."""
    machine = lab.machine
    lab.start_with_key()
    lab.trust_publisher()
    bundle = lab.model
    machine.run(FORGET_TWIN)
    with serving(machine.work) as port:
        said = machine.run(f"edgeai import http://{HOST}:{port}/{bundle.name} --json", within=600)
        received, size = json.loads(said)["received_bytes"], bundle.stat().st_size
        lab.note("a model over the network, bytes of the bundle that were fetched", f"{received} of {size}")
        try_it = f"python3 -c 'import socket; socket.create_connection((\"{HOST}\", {port}), 3)'"
        shut = machine.run(f"{try_it} 2>/dev/null && echo open || echo shut")
    require(shut.strip() == "shut", "the firewall stayed open after an import")
    came_through = machine.run(f"python3 - <<'END'\n{ATTEMPTS}\nEND")
    require(not came_through.strip(), f"the firewall let through: {came_through}")
    owners = machine.run("stat -c %U /data/edgeai/models/* /data/edgeai/bundles/* | sort -u")
    require(owners.split() == ["edgeai"], f"files of the server's belong to {owners}")
    machine.run(f"set -e; cd /; edgeai verify twin; {FORGET_TWIN}; sync", within=300)


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


def stalled_card(lab: Lab) -> None:
    """A card that stops answering for good: the kernel gives it up, and starts the board again."""
    machine = lab.machine
    lab.start_with_key()
    identity = machine.run("cat /proc/sys/kernel/random/boot_id")
    machine.run(f"(sleep 5; date >{STALLED_NOTE}; sync) >/dev/null 2>&1 &")
    machine.stall()
    stalled = time.monotonic()
    while not machine.said(GIVEN_UP):
        require(time.monotonic() < stalled + STALLED_SECONDS, "a card that does not answer was waited for")
        time.sleep(1)
    lab.note("a card that stops answering: seconds until the kernel gave it up", round(time.monotonic() - stalled))
    machine.end_stall()  # the emulator's own restart waits for it
    machine.ready_after(within=300)
    lab.note("seconds until the board was ready again", round(time.monotonic() - stalled))
    machine.await_ssh()
    require(machine.run("cat /proc/sys/kernel/random/boot_id") != identity, "the board has not started again")
    ask_briefly(machine)
    machine.run(f"rm -f {STALLED_NOTE}; sync")


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


CHECKS: dict[str, Callable[[Lab], None]] = {
    "first-start": first_start,
    "answer": answer,
    "silence": silence,
    "writes": writes,
    "access-point": access_point,
    "setup-page": setup_page,
    "usb-stick": usb_stick,
    "network": network,
    "update": update,
    "stalled-card": stalled_card,
    "rollback": rollback,
    "power-cuts": power_cuts,
}
