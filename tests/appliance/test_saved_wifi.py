"""The set-up page's Wi-Fi: proved once it was joined, given up and told when it never is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgeai.appliance import saved_wifi
from edgeai.appliance.cloud_config import WifiNetwork, read_folder
from edgeai.appliance.first_boot import WIFI_UNPROVED, read_settings
from edgeai.appliance.setup_page import page, save

TOLD = "The Wi-Fi 'Clinic' could not be joined: a wrong password, or too far away?"


class Board:
    """A board whose Wi-Fi, cable and clock are a test's; it has been told of one network."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.boot, self.saved, self.run, self.network = (folder / name for name in ("boot", "saved", "run", "net"))
        for made in (self.boot, self.saved, self.run, self.network / "wlan0/phy80211", self.network / "eth0"):
            made.mkdir(parents=True)
        self.commands: list[list[str]] = []
        self.cable = False
        self.state = "dormant"
        self.later: list[tuple[float, str, Any]] = []  # at which second which attribute becomes what
        self.seconds = 0.0
        joined = saved_wifi.joined
        monkeypatch.setattr(saved_wifi, "SYSTEM_DATA", self.saved)
        monkeypatch.setattr(saved_wifi, "give_up", lambda give_up=saved_wifi.give_up: give_up(self.saved))
        monkeypatch.setattr(saved_wifi, "joined", lambda: joined(self.network))
        monkeypatch.setattr(saved_wifi, "cable_plugged", lambda: self.cable)
        monkeypatch.setattr(saved_wifi.time, "monotonic", lambda: self.seconds)
        monkeypatch.setattr(saved_wifi.time, "sleep", self.wait)
        monkeypatch.setattr(saved_wifi.subprocess, "run", lambda command, check: self.commands.append(command))
        save({"wifi": "Clinic", "password": "one wrong letter"}, self.saved)
        self.wait(0)

    def wait(self, seconds: float) -> None:
        self.seconds += seconds
        for at, name, value in self.later:
            if self.seconds >= at:
                setattr(self, name, value)
        (self.network / "wlan0/operstate").write_text(f"{self.state}\n")

    @property
    def given_up(self) -> bool:
        assert self.commands == ([["systemctl", "reboot"]] if not (self.saved / "network-config").exists() else [])
        return bool(self.commands)


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Board:
    return Board(tmp_path, monkeypatch)


def test_what_is_never_joined_is_given_up_and_told(board: Board) -> None:
    assert read_settings(board.boot, board.saved, board.run).wifi
    assert (board.run / WIFI_UNPROVED).exists()
    saved_wifi.main()
    assert board.given_up
    assert saved_wifi.JOINED_WITHIN_SECONDS <= board.seconds < saved_wifi.JOINED_WITHIN_SECONDS + 30
    settings = read_settings(board.boot, board.saved, board.run)
    assert (settings.wifi, settings.notes) == ((), (TOLD,))  # no Wi-Fi is known: the access point and its page are back
    assert "could not be joined" in page("token", saved_wifi.given_up(board.saved) or "").decode()
    save({"wifi": "Clinic", "password": "the right letters"}, board.saved)
    assert read_settings(board.boot, board.saved, board.run).notes == ()


def test_what_was_joined_once_is_kept_for_ever(board: Board) -> None:
    board.later = [(60, "state", "up")]
    saved_wifi.main()
    assert not board.given_up
    (board.run / WIFI_UNPROVED).unlink(missing_ok=True)
    assert read_settings(board.boot, board.saved, board.run).wifi == (WifiNetwork("Clinic", "one wrong letter"),)
    assert not (board.run / WIFI_UNPROVED).exists()  # edgeai-wifi-proof.service is not started
    save({"wifi": "Other", "password": "not joined yet"}, board.saved)
    read_settings(board.boot, board.saved, board.run)
    assert (board.run / WIFI_UNPROVED).exists()


def test_with_a_cable_nobody_is_locked_out(board: Board) -> None:
    board.cable = True
    board.later = [(1000, "cable", False)]
    saved_wifi.main()
    assert board.given_up
    assert board.seconds >= 1000


def test_the_boot_partitions_networks_are_never_judged(board: Board) -> None:
    (board.boot / "network-config").write_text("wifis: {wlan0: {access-points: {Named: {password: long enough}}}}")
    assert read_settings(board.boot, board.saved, board.run).wifi == (WifiNetwork("Named", "long enough"),)
    assert not (board.run / WIFI_UNPROVED).exists()


def test_a_cut_while_giving_up_leaves_it_or_the_page(board: Board) -> None:
    saved_wifi.give_up()
    assert read_folder(board.saved).wifi == ()
    save({"wifi": "Clinic", "password": "wrong once more"}, board.saved)
    saved_wifi.give_up()
    assert saved_wifi.given_up(board.saved) == TOLD
