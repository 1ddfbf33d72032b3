"""How the last server ended, by processes that really die."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgeai.tuning import run_marker
from edgeai.tuning.run_marker import RunMarker

PACKAGE = "abcd" * 16
SERVER = """
import sys, time
from pathlib import Path
from edgeai.tuning.run_marker import RunMarker
with RunMarker(Path(sys.argv[1]), sys.argv[2]) as marker:
    if sys.argv[3] == "running":
        marker.ready()
    print(marker.died, marker.deaths, flush=True)
    sys.stdin.readline()
"""


def start(home: Path, phase: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SERVER, str(home), PACKAGE, phase]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.said = process.stdout.readline().strip()  # type: ignore[attr-defined]
    return process


def die(home: Path, phase: str) -> None:
    process = start(home, phase)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def seen(home: Path) -> tuple[str | None, int]:
    with RunMarker(home, PACKAGE) as marker:
        return marker.died, marker.deaths


def test_a_good_end_leaves_nothing(tmp_path: Path) -> None:
    assert seen(tmp_path) == (None, 0)
    process = start(tmp_path, "running")
    process.communicate("\n")
    assert process.returncode == 0
    assert seen(tmp_path) == (None, 0)


def test_a_death_while_running(tmp_path: Path) -> None:
    die(tmp_path, "running")
    assert seen(tmp_path) == ("running", 0)
    assert seen(tmp_path) == (None, 0)  # the one that saw it ended well


def test_deaths_while_starting_are_counted(tmp_path: Path) -> None:
    for _ in range(3):
        die(tmp_path, "starting")
    assert seen(tmp_path) == ("starting", 3)
    die(tmp_path, "starting")
    die(tmp_path, "running")
    assert seen(tmp_path) == ("running", 0)


def test_errors_that_are_told_are_no_deaths(tmp_path: Path) -> None:
    with pytest.raises(OSError), RunMarker(tmp_path, PACKAGE):
        raise OSError
    assert seen(tmp_path) == (None, 0)


def test_a_server_beside_another_sees_nothing(tmp_path: Path) -> None:
    process = start(tmp_path, "running")
    assert seen(tmp_path) == (None, 0)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert seen(tmp_path) == ("running", 0)  # and the other's mark is still there


def test_the_power_is_nobodys_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    die(tmp_path, "starting")
    other = tmp_path / "boot_id"
    other.write_text("another start of the system\n")
    monkeypatch.setattr(run_marker, "BOOT_ID", other)
    assert seen(tmp_path) == (None, 0)


@pytest.mark.parametrize("content", ["{", "[]", "null", '{"phase": 1}', "\x00\x00"])
def test_a_damaged_mark_says_nothing(tmp_path: Path, content: str) -> None:
    die(tmp_path, "running")
    (mark,) = (tmp_path / "profiles").iterdir()
    mark.write_text(content)
    assert seen(tmp_path) == (None, 0)


def test_nothing_is_remembered_without_a_home(tmp_path: Path) -> None:
    with RunMarker(None, PACKAGE) as marker:
        marker.ready()
    (tmp_path / "profiles").write_text("in the way")
    assert seen(tmp_path) == (None, 0)
