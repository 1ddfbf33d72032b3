"""At every start: what people wrote onto the boot partition takes effect. It is read anew each time, and nothing of it
is kept elsewhere: whoever can edit the card's first partition can change it, on any computer.

A board must start with whatever it has: what fails is told on the screen, and keeps nothing else from its effect.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
import tomllib
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from edgeai.appliance import network_files, saved_wifi
from edgeai.appliance.card_writes import SYSTEM_DATA
from edgeai.appliance.cloud_config import BoardSettings, WifiNetwork, read_folder
from edgeai.appliance.hourly import restore_clock
from edgeai.appliance.serial import serial_suffix
from edgeai.appliance.slots import BOOT_FOLDER
from edgeai.discovery.names import host_label

DEFAULT_NAME = "edgeai"
RUN = Path("/run/edgeai")
NETWORKS = Path("/run/systemd/network")
TIMESYNC = Path("/run/systemd/timesyncd.conf.d")
ZONES = Path("/usr/share/zoneinfo")
SET_UP_WANTED = "set-up-wanted"  # no Wi-Fi is known: edgeai-setup-page.service starts where there is Wi-Fi
WIFI_UNPROVED = "wifi-unproved"  # its Wi-Fi comes from the set-up page and was never joined: edgeai-wifi-proof.service
SERVER_SETTINGS = "edgeai.toml"
TRUSTED = Path("/data/keys")  # public keys of those who may sign models
OWNED = Path("/data/edgeai")
OWNER = "edgeai"


def write_settings(
    settings: BoardSettings, run: Path = RUN, networks: Path = NETWORKS, zones: Path = ZONES
) -> list[str]:
    """Write the files that other programs read, all of them in memory. Returns what people are to know."""
    notes: list[str] = []
    access_point = False
    for folder in (run, networks):
        folder.mkdir(parents=True, exist_ok=True)
    with noted("Wi-Fi", notes):
        access_point = _write_wifi(settings, run, networks)
    with noted("ports", notes):
        _write(run / "open.nft", network_files.opened_ports(settings, access_point=access_point))
    with noted("addresses", notes):
        for number, interface in enumerate(settings.interfaces):
            if not (access_point and interface.name.startswith("wl")):
                _write(networks / f"60-edgeai-{number}.network", network_files.interface_network(interface))
    with noted("SSH keys", notes):
        if settings.ssh_keys:
            _write(run / "authorized_keys", "".join(f"{key}\n" for key in settings.ssh_keys))
    with noted("time zone", notes):
        notes += _timezone(settings.timezone, run, zones)
    return notes


def _write_wifi(settings: BoardSettings, run: Path, networks: Path) -> bool:
    """Returns whether the board offers an access point."""
    offered = [one for one in settings.wifi if one.offered]
    wifi = offered[:1] or list(settings.wifi) or [own_access_point()]
    access_point = wifi[0].offered
    if not settings.wifi:
        (run / SET_UP_WANTED).touch()
    _write(run / "wifi.conf", network_files.wifi_config(wifi, settings.country), 0o600)
    if access_point:
        _write(networks / "70-edgeai-access-point.network", network_files.access_point_network())
    return access_point


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


def open_ports(run: Path = RUN) -> None:
    """Let in and out what was asked for. Raises CalledProcessError where nftables refuses."""
    subprocess.run(["nft", "-f", str(run / "open.nft")], check=True)


def ask_for_time(servers: Sequence[str]) -> None:
    """Set the clock by these servers, if there are any. Raises OSError and CalledProcessError."""
    if servers:
        TIMESYNC.mkdir(parents=True, exist_ok=True)
        _write(TIMESYNC / "edgeai.conf", f"[Time]\nNTP={' '.join(servers)}\nFallbackNTP=\n")
        subprocess.run(["systemctl", "start", "--no-block", "systemd-timesyncd.service"], check=True)


def prepare_data() -> None:
    """Folders of the data partition, and the time of the last stop, for boards that have no clock."""
    SYSTEM_DATA.mkdir(mode=0o711, exist_ok=True)  # the server tells what is written to the card
    TRUSTED.mkdir(mode=0o755, exist_ok=True)
    OWNED.mkdir(mode=0o700, exist_ok=True)
    shutil.chown(OWNED, OWNER, OWNER)
    restore_clock(time.time())


def read_settings(boot: Path, saved: Path, run: Path) -> BoardSettings:
    """What holds now: the boot partition's files, and what the set-up page has saved."""
    named = read_folder(boot)
    settings = with_saved(named, read_folder(saved))
    if settings.wifi and not named.wifi and saved_wifi.unproved(saved):
        (run / WIFI_UNPROVED).touch()
    if not settings.wifi and (told := saved_wifi.given_up(saved)):
        settings = replace(settings, notes=(*settings.notes, told))
    return settings


@contextmanager
def noted(what: str, notes: list[str]) -> Iterator[None]:
    """Whatever goes wrong with `what` becomes a note, and all of it is in the log."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 (that is this module's promise)
        notes.append(f"{what}: {error}")
        traceback.print_exc()


def main() -> None:
    """Read, write, apply."""
    notes: list[str] = []
    settings = BoardSettings()
    RUN.mkdir(parents=True, exist_ok=True)
    with noted("settings", notes):
        settings = read_settings(BOOT_FOLDER, SYSTEM_DATA, RUN)
    notes += settings.notes
    with noted("settings", notes):
        notes += write_settings(settings)
    with noted("firewall", notes):
        open_ports()
    with noted(SERVER_SETTINGS, notes):
        notes += copy_server_settings(BOOT_FOLDER, RUN)
    with noted("data partition", notes):
        if os.path.ismount("/data"):
            prepare_data()
    with noted("host name", notes):
        socket.sethostname(host_label(settings.hostname or DEFAULT_NAME))
    with noted("time servers", notes):
        ask_for_time(settings.ntp)
    _write(RUN / "notes", "".join(f"{note}\n" for note in notes))


if __name__ == "__main__":
    main()
