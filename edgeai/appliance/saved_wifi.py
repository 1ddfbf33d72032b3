"""The Wi-Fi that was told to the set-up page: kept once it was joined, given up when it never is.

A password with a wrong letter would lock the board away: it knows a network, so it offers none of its own to mend that.
What people write onto the boot partition is not judged here: they can write it again.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from edgeai.appliance.card_writes import SYSTEM_DATA
from edgeai.appliance.cloud_config import NETWORK_CONFIG, read_folder
from edgeai.package.durable import sync_folder, write_file

PROVED = "wifi-proved"  # the saved network was joined once
GIVEN_UP = "given-up"  # a folder for what was saved and never joined, so that people can be told
JOINED_WITHIN_SECONDS = 180
BETWEEN_SECONDS = 5
NETWORK = Path("/sys/class/net")
CABLE_PLUGGED = "/usr/libexec/edgeai/cable-plugged"


def unproved(folder: Path = SYSTEM_DATA) -> bool:
    """Whether what is saved in `folder` was never joined."""
    return not (folder / PROVED).exists()


def forget_proof(folder: Path = SYSTEM_DATA) -> None:
    """What was joined is not what is saved next."""
    (folder / PROVED).unlink(missing_ok=True)
    sync_folder(folder)


def given_up(folder: Path = SYSTEM_DATA) -> str | None:
    """What people are told of a network that was saved and never joined, until another one is."""
    names = ", ".join(repr(wifi.name) for wifi in read_folder(folder / GIVEN_UP).wifi)
    return f"The Wi-Fi {names} could not be joined: a wrong password, or too far away?" if names else None


def give_up(folder: Path = SYSTEM_DATA) -> None:
    """Forget what is saved; the next start offers the set-up page again."""
    (folder / GIVEN_UP).mkdir(mode=0o700, exist_ok=True)
    (folder / NETWORK_CONFIG).rename(folder / GIVEN_UP / NETWORK_CONFIG)
    sync_folder(folder / GIVEN_UP)
    sync_folder(folder)


def joined(network: Path = NETWORK) -> bool:
    """Whether a Wi-Fi was joined with its password, and not only heard: "dormant" is a card that is still asking."""
    states = (card.parent / "operstate" for card in network.glob("*/phy80211"))
    return any(state.read_text().strip() == "up" for state in states)


def cable_plugged() -> bool:
    """Whether the board can be reached by a cable: then nobody is locked out."""
    return subprocess.run([CABLE_PLUGGED]).returncode == 0


def main() -> None:
    """Wait until it is known: joined, or not in time and without a cable."""
    deadline = time.monotonic() + JOINED_WITHIN_SECONDS
    while not joined():
        if time.monotonic() > deadline and not cable_plugged():
            print("the Wi-Fi of the set-up page cannot be joined: it is forgotten", file=sys.stderr)
            give_up()
            subprocess.run(["systemctl", "reboot"], check=True)
            return
        time.sleep(BETWEEN_SECONDS)
    write_file(SYSTEM_DATA / PROVED, b"")


if __name__ == "__main__":
    main()
