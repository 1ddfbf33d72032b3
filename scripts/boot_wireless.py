"""Checks of Wi-Fi on simulated radios. Each finds the machine off, and leaves it off or to the next one."""

from __future__ import annotations

import time

from boot_control import control
from boot_guest import ACCESS_POINT, ADD_RADIOS, JOIN, REMOVE_RADIOS, SETUP_PAGE, TELL_WIFI, TOLD_WIFI, in_background
from boot_lab import Lab, require
from boot_machine import write_to_boot

UNPLUGGED_SECONDS = 60


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
