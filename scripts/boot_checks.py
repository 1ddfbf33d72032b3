"""What is proved of an image by booting it. Each check finds the machine off, and leaves it off or to the next one."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from boot_cuts import power_cuts
from boot_guest import ASIDE, ATTEMPTS, FORGET_TWIN, STATUS
from boot_lab import Lab, ask, ask_briefly, no_failed_units, require
from boot_machine import BOOT_ID, HOST, MAC, Machine, make_stick
from boot_mirror import serving
from boot_silence import sent
from boot_trials import rollback, update
from boot_wireless import access_point, setup_page

IDLE_SECONDS = 60
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


def stalled_card(lab: Lab) -> None:
    """A card that stops answering for good: the kernel gives it up, and starts the board again."""
    machine = lab.machine
    lab.start_with_key()
    identity = machine.run(BOOT_ID)
    machine.run(f"(sleep 5; date >{STALLED_NOTE}; sync) >/dev/null 2>&1 &")
    machine.stall()
    stalled = time.monotonic()
    while GIVEN_UP not in machine.console():
        require(time.monotonic() < stalled + STALLED_SECONDS, "a card that does not answer was waited for")
        time.sleep(1)
    lab.note("a card that stops answering: seconds until the kernel gave it up", round(time.monotonic() - stalled))
    machine.end_stall()  # the emulator's own restart waits for it
    machine.ready_after(within=300)
    lab.note("seconds until the board was ready again", round(time.monotonic() - stalled))
    machine.await_ssh()
    require(machine.run(BOOT_ID) != identity, "the board has not started again")
    ask_briefly(machine)
    machine.run(f"rm -f {STALLED_NOTE}; sync")


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
