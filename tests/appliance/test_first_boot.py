"""At every start: whatever fails, the rest takes effect."""

from __future__ import annotations

from pathlib import Path
from subprocess import CalledProcessError

import pytest

from edgeai.appliance import first_boot

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ8cX amina@clinic"


class Board:
    """A board's folders, and what was done to the running system."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.boot, self.run = folder / "boot", folder / "run"
        self.boot.mkdir()
        self.done: list[str] = []
        self.broken: set[str] = set()
        names = {
            "BOOT_FOLDER": self.boot,
            "RUN": self.run,
            "SYSTEM_DATA": folder / "saved",
            "TIMESYNC": folder / "time",
        }
        for name, value in names.items():
            monkeypatch.setattr(first_boot, name, value)
        write = first_boot.write_settings
        zones = folder / "zones/Etc/UTC"
        zones.parent.mkdir(parents=True)
        zones.touch()
        monkeypatch.setattr(
            first_boot, "write_settings", lambda given: write(given, self.run, folder / "networks", folder / "zones")
        )
        monkeypatch.setattr(first_boot.os.path, "ismount", lambda path: True)
        monkeypatch.setattr(first_boot, "prepare_data", lambda: self._do("data"))
        monkeypatch.setattr(first_boot.socket, "sethostname", lambda name: self._do(f"name {name}"))
        monkeypatch.setattr(first_boot.subprocess, "run", lambda command, check: self._do(command[0]))

    def _do(self, what: str) -> None:
        if what.split()[0] in self.broken:
            raise CalledProcessError(1, what)
        self.done.append(what)

    def start(self) -> list[str]:
        """Start it; returns what people are told."""
        first_boot.main()
        return (self.run / "notes").read_text().splitlines()


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Board:
    board = Board(tmp_path, monkeypatch)
    text = f"hostname: clinic\nssh_authorized_keys: [{KEY}]\nntp: {{servers: [192.168.1.1]}}\n"
    (board.boot / "user-data").write_text(text)
    return board


def test_all_that_was_asked_for_is_done(board: Board) -> None:
    assert board.start() == []
    assert board.done == ["nft", "data", "name clinic", "systemctl"]
    assert "tcp_in { 22 }" in (board.run / "open.nft").read_text()


@pytest.mark.parametrize("broken", ["nft", "data", "name", "systemctl"])
def test_what_fails_is_told_and_the_rest_is_done(board: Board, broken: str) -> None:
    board.broken = {broken}
    [note] = board.start()
    assert "returned non-zero" in note
    assert len(board.done) == 3


@pytest.mark.parametrize(("name", "label"), [
    ("ໂຮງຮຽນ" * 20, "edgeai"),
    ("é" * 60, "edgeai"),
    ("x" * 300, "x" * 63),
    ("Clinic No. 2", "clinic-no-2"),
    ("clinic.local", "clinic"),
])  # fmt: skip
def test_any_name_becomes_one_that_a_machine_can_have(board: Board, name: str, label: str) -> None:
    (board.boot / "user-data").write_text(f"hostname: {name}\n", encoding="utf-8")
    assert board.start() == []
    assert f"name {label}" in board.done


def test_a_file_that_cannot_be_read_costs_no_other(board: Board) -> None:
    (board.boot / "network-config").write_text("[" * 5000)
    (board.boot / "edgeai.toml").write_bytes(b"\xff")
    notes = board.start()
    assert [note.split()[0] for note in notes] == ["network-config", "edgeai.toml"]
    assert "name clinic" in board.done


def test_what_nobody_thought_of_is_a_note_too(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("nobody thought of it")

    monkeypatch.setattr(first_boot, "read_settings", fail)
    assert board.start() == ["settings: nobody thought of it"]
    assert board.done == ["nft", "data", "name edgeai"]
