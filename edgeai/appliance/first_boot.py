"""At every start: what people wrote onto the boot partition takes effect. It is read anew each time, and nothing of it
is kept elsewhere: whoever can edit the card's first partition can change it, on any computer.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
import tomllib
from dataclasses import replace
from pathlib import Path

from edgeai.appliance import network_files
from edgeai.appliance.card_writes import SYSTEM_DATA
from edgeai.appliance.cloud_config import BoardSettings, WifiNetwork, read_folder
from edgeai.appliance.hourly import restore_clock
from edgeai.appliance.serial import serial_suffix
from edgeai.appliance.slots import BOOT_FOLDER

DEFAULT_NAME = "edgeai"
HOST_NAME_CHARACTERS = 63
RUN = Path("/run/edgeai")
NETWORKS = Path("/run/systemd/network")
TIMESYNC = Path("/run/systemd/timesyncd.conf.d")
ZONES = Path("/usr/share/zoneinfo")
SET_UP_WANTED = "set-up-wanted"  # no Wi-Fi is known: edgeai-setup-page.service starts where there is Wi-Fi
SERVER_SETTINGS = "edgeai.toml"
TRUSTED = Path("/data/keys")  # public keys of those who may sign models
OWNED = Path("/data/edgeai")
OWNER = "edgeai"


def write_settings(settings: BoardSettings, run: Path = RUN, networks: Path = NETWORKS, zones: Path = ZONES) -> None:
    """Write the files that other programs read, all of them in memory."""
    for folder in (run, networks):
        folder.mkdir(parents=True, exist_ok=True)
    offered = [one for one in settings.wifi if one.offered]
    wifi = offered[:1] or list(settings.wifi) or [own_access_point()]
    access_point = wifi[0].offered
    if not settings.wifi:
        (run / SET_UP_WANTED).touch()
    _write(run / "wifi.conf", network_files.wifi_config(wifi, settings.country), 0o600)
    if access_point:
        _write(networks / "70-edgeai-access-point.network", network_files.access_point_network())
    for number, interface in enumerate(settings.interfaces):
        if not (access_point and interface.name.startswith("wl")):
            _write(networks / f"60-edgeai-{number}.network", network_files.interface_network(interface))
    if settings.ssh_keys:
        _write(run / "authorized_keys", "".join(f"{key}\n" for key in settings.ssh_keys))
    notes = [*settings.notes, *_timezone(settings.timezone, run, zones)]
    _write(run / "notes", "".join(f"{note}\n" for note in notes))
    _write(run / "open.nft", network_files.opened_ports(settings, access_point=access_point))


def own_access_point() -> WifiNetwork:
    """What a board offers that knows no Wi-Fi: open, for there is nowhere that a password could be read."""
    return WifiNetwork("-".join(filter(None, (DEFAULT_NAME, serial_suffix()))), offered=True)


def with_saved(settings: BoardSettings, saved: BoardSettings) -> BoardSettings:
    """What the set-up page has saved holds where the boot partition names no Wi-Fi."""
    if settings.wifi:
        return settings
    return replace(
        settings,
        wifi=saved.wifi,
        country=saved.country,
        hostname=settings.hostname or saved.hostname,
        notes=(*settings.notes, *saved.notes),
    )


def copy_server_settings(boot: Path, run: Path) -> list[str]:
    """Give the server its settings; what is wrong with them, where they cannot be read at all."""
    source = boot / SERVER_SETTINGS
    if not source.is_file():
        return []
    try:
        text = source.read_text(encoding="utf-8-sig")
        tomllib.loads(text)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        return [f"{SERVER_SETTINGS} has no effect, it is not TOML: {error}"]
    run.mkdir(parents=True, exist_ok=True)
    _write(run / SERVER_SETTINGS, text)
    return []


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)


def _timezone(name: str | None, run: Path, zones: Path) -> list[str]:
    zone = (zones / (name or "Etc/UTC")).resolve()
    if not (zone.is_file() and zone.is_relative_to(zones.resolve())):
        return [f"there is no time zone {name}"]
    (run / "localtime").unlink(missing_ok=True)
    (run / "localtime").symlink_to(zone)
    return []


def apply(settings: BoardSettings) -> None:
    """Tell the running system. Raises OSError and CalledProcessError where it refuses."""
    socket.sethostname((settings.hostname or DEFAULT_NAME)[:HOST_NAME_CHARACTERS])
    subprocess.run(["nft", "-f", str(RUN / "open.nft")], check=True)
    if settings.ntp:
        TIMESYNC.mkdir(parents=True, exist_ok=True)
        _write(TIMESYNC / "edgeai.conf", f"[Time]\nNTP={' '.join(settings.ntp)}\nFallbackNTP=\n")
        subprocess.run(["systemctl", "start", "--no-block", "systemd-timesyncd.service"], check=True)


def prepare_data() -> None:
    """Folders of the data partition, and the time of the last stop, for boards that have no clock."""
    SYSTEM_DATA.mkdir(mode=0o711, exist_ok=True)  # the server tells what is written to the card
    TRUSTED.mkdir(mode=0o755, exist_ok=True)
    OWNED.mkdir(mode=0o700, exist_ok=True)
    shutil.chown(OWNED, OWNER, OWNER)
    restore_clock(time.time())


def main() -> None:
    """Read, write, apply."""
    settings = with_saved(read_folder(BOOT_FOLDER), read_folder(SYSTEM_DATA))
    write_settings(replace(settings, notes=(*settings.notes, *copy_server_settings(BOOT_FOLDER, RUN))))
    if os.path.ismount("/data"):
        prepare_data()
    apply(settings)


if __name__ == "__main__":
    main()
