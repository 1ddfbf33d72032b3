"""What the appliance does in plain shell: a key for SSH, the screen, sticks, cables."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.appliance.overlay_scripts import Machine


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


needs_ssh = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="keys are made by OpenSSH")


@needs_ssh
@pytest.mark.parametrize("left", [(), ("new",), ("new", "new.pub"), ("new", "host_key.pub"), ("host_key",)])
def test_a_host_key_is_made_whatever_a_cut_has_left(machine: Machine, left: tuple[str, ...]) -> None:
    for name in left:
        machine.path(f"data/system/ssh/{name}").touch()
    machine.path("data/system/x")
    machine.program("sync", "")
    done = machine.run("ssh-host-key")
    assert done.returncode == 0, done.stderr
    key = machine.path("data/system/ssh/host_key")
    public = subprocess.run(["ssh-keygen", "-y", "-f", key], capture_output=True, text=True, check=True).stdout
    assert key.with_suffix(".pub").read_text().split()[:2] == public.split()[:2]
    assert sorted(path.name for path in key.parent.iterdir()) == ["host_key", "host_key.pub"]
    before = key.read_bytes()
    assert machine.run("ssh-host-key").returncode == 0
    assert key.read_bytes() == before


def screens(machine: Machine, *changes: str) -> list[str]:
    """What the screen showed: at first, and after each change that it noticed."""
    for name in ("setterm", "ip", "mountpoint"):
        machine.program(name, "")
    machine.program("uname", "echo board")
    machine.program(
        "systemctl", 'case "$*" in *--value*) cat $root/status ;; *) echo "StatusText=$(cat $root/status)" ;; esac'
    )
    cases = "\n".join(f"{number}) {change} ;;" for number, change in enumerate(changes, 1))
    # What waits for a change has time to show it before the next one comes.
    machine.program(
        "sleep", f"/bin/sleep 0.3\nn=$(($(cat $root/n) + 1)); echo $n >$root/n\ncase $n in\n{cases}\n*) exit 1 ;;\nesac"
    )
    machine.path("n").write_text("0")
    machine.path("status").write_text("loading")
    machine.path("run/edgeai/notes").touch()
    machine.path("data/edgeai/first-key.txt").write_text("sk-1\n")
    return machine.run("console").stdout.split("\033[2J\033[H")[1:]


def test_the_screen_shows_the_name_that_is_announced(machine: Machine) -> None:
    first, *_, last = screens(machine, "echo serving as clinic-b7c1.local >$root/status")
    assert "http://board.local\n" in first
    assert "http://clinic-b7c1.local\n" in last
    assert "board.local" not in last


def test_the_screen_shows_notes_that_come_after_the_key_was_removed(machine: Machine) -> None:
    seen = screens(
        machine,
        "rm $root/data/edgeai/first-key.txt",
        "true",
        "echo x.bundle: installed >>$root/run/edgeai/notes",
        "true",
    )
    assert [("Key: sk-1" in each, "x.bundle: installed" in each) for each in seen[1:]] == [
        (False, False),
        (False, True),
    ]


def test_the_screen_is_drawn_anew_only_for_something_new(machine: Machine) -> None:
    assert len(screens(machine, "true", "true", "true", "true")) == 2  # at once, and with what is watched from then on


def stick(machine: Machine, *, mounted: str) -> subprocess.CompletedProcess[str]:
    machine.path("run/edgeai/notes").touch()
    machine.path("data/system/x")
    machine.program("lsblk", 'case "$*" in *by-partuuid*) echo mmcblk0 ;; *) echo sda ;; esac')
    machine.program("mount", f'echo "$@" >$root/mounted\n{mounted}')
    machine.program("umount", "")
    machine.program("setpriv", 'echo "$@" >>$root/imported')
    return machine.run("usb-stick", "/dev/sda1")


def test_few_drivers_are_let_at_a_stick(machine: Machine) -> None:
    assert stick(machine, mounted="touch $root/run/edgeai/usb/model.bundle").returncode == 0
    assert "-t vfat,exfat,ext4 -o ro,nosuid,nodev,noexec" in machine.path("mounted").read_text()
    assert "model.bundle: installed" in machine.path("run/edgeai/notes").read_text()


def test_a_stick_that_cannot_be_read_is_told(machine: Machine) -> None:
    assert stick(machine, mounted="exit 32").returncode == 0
    assert "cannot be read" in machine.path("run/edgeai/notes").read_text()
    assert not machine.path("imported").exists()


@pytest.mark.parametrize(("kind", "carrier", "plugged"), [
    ("device", "1", True),
    ("device", "0", False),
    ("device/../phy80211", "1", False),
    ("bridge", "1", False),
])  # fmt: skip
def test_a_cable_is_told_from_everything_else(machine: Machine, kind: str, carrier: str, plugged: bool) -> None:
    card = machine.path("sys/class/net/card0/carrier").parent
    (card / "device").mkdir()
    (card / kind).mkdir(exist_ok=True)
    if kind == "bridge":
        (card / "device").rmdir()
    (card / "carrier").write_text(carrier)
    machine.program("sleep", "")
    assert (machine.run("cable-plugged").returncode == 0) is plugged
    assert machine.run("wifi-wanted").returncode == 0  # for a network that was named
    machine.path("run/edgeai/set-up-wanted").touch()
    assert (machine.run("wifi-wanted").returncode == 1) is plugged
