"""What units, the boot loader and Python have to agree on, and systemd's own judgement of the units."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from edgeai.appliance import first_boot, health, saved_wifi
from edgeai.appliance.slots import RELEASE
from edgeai.imaging.boot import _GRUB_MODULES
from tests.fixtures.images import IMAGES

UNITS = IMAGES / "overlay/usr/lib/systemd/system"
GRUB, UBOOT = (re.sub(r"(?m)^#.*\n", "", (IMAGES / "boot" / name).read_text()) for name in ("grub.cfg", "uboot.cmd"))
MODULES = {  # in which of GRUB's modules a command is
    **dict.fromkeys(("load_env", "save_env"), "loadenv"),
    **dict.fromkeys(("linux", "initrd", "boot"), "linux"),
    **dict.fromkeys(("set", "source"), "normal"),
    "[": "test",
    "sleep": "sleep",
    "reboot": "reboot",
}


def values(unit: str, key: str) -> list[str]:
    """What a unit says under a key, in all of its lines."""
    return re.findall(rf"(?m)^{key}=(.*)$", (UNITS / unit).read_text())


def test_grub_does_not_wait_at_its_prompt() -> None:
    assert GRUB.splitlines()[-2:] == ["sleep 5", "reboot"]


def test_grub_starts_the_other_slot_where_a_good_one_cannot_be_loaded() -> None:
    first, second = GRUB.split("\nstart\n")
    assert "function start {" in first
    # A trial starts the board again: its tries have to run out.
    assert second.startswith('if [ -z "$trial" ]; then\n')
    assert f"if [ -f /$slot/{RELEASE} ]; then start; fi" in second


def test_grub_has_the_modules_of_its_configuration() -> None:
    words = set(re.findall(r"(?m)(?:^ *|then |else |if |; )([a-z_]+|\[)(?=[ ;]|$)", GRUB))
    commands = words - {"if", "elif", "else", "fi", "then", "function", "start"}
    assert commands <= MODULES.keys(), commands - MODULES.keys()
    assert {MODULES[command] for command in commands} <= set(_GRUB_MODULES)


@pytest.mark.skipif(shutil.which("grub-script-check") is None, reason="GRUB's own judgement needs GRUB")
def test_grub_understands_its_configuration() -> None:
    subprocess.run(["grub-script-check", IMAGES / "boot/grub.cfg"], check=True)


def test_a_trial_ends_even_if_python_is_broken() -> None:
    [word] = values("edgeai-trial.timer", "ConditionKernelCommandLine")
    assert f"set trial={word}" in GRUB
    assert f"setenv trial {word}" in UBOOT
    assert "setenv bootargs ${bootargs} ${trial} " in UBOOT
    assert re.search(r"(?m)if linux .* \$trial; then$", GRUB)
    assert values("edgeai-trial.service", "ConditionPathExists") == [f"!{health.GOOD}"]
    [command] = values("edgeai-trial.service", "ExecStart")
    assert command.endswith("/systemctl --no-block reboot")
    [minutes] = values("edgeai-trial.timer", "OnBootSec")
    assert int(minutes.removesuffix("min")) * 60 > 2 * health.HEALTHY_WITHIN_SECONDS


def test_units_look_where_python_writes() -> None:
    run = first_boot.RUN
    assert values("edgeai-wifi-proof.service", "ConditionPathExists") == [f"{run / first_boot.WIFI_UNPROVED}"]
    assert f"{run / first_boot.SET_UP_WANTED}" in values("edgeai-setup-page.service", "ConditionPathExists")
    assert (IMAGES / "overlay" / saved_wifi.CABLE_PLUGGED.lstrip("/")).stat().st_mode & 0o111


def test_no_network_without_the_firewall() -> None:
    for unit in ("systemd-networkd.service.d/edgeai.conf", "edgeai-wifi@.service"):
        assert values(unit, "Requires") == ["nftables.service"]
        assert "nftables.service" in " ".join(values(unit, "After"))


def test_wifi_does_not_hold_the_server_back() -> None:
    assert values("edgeai-wifi@.service", "Before") == []


def test_a_server_without_a_model_is_started_less_and_less_often() -> None:
    assert values("edgeai.service.d/appliance.conf", "RestartSteps")
    assert values("edgeai.service.d/appliance.conf", "RestartMaxDelaySec") == ["60"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd's own judgement needs systemd")
@pytest.mark.parametrize("name", ["edgeai-trial.timer", "edgeai-wifi-proof.service", "edgeai-last-notes.service"])
def test_systemd_understands_the_units(name: str, tmp_path: Path) -> None:
    for unit in UNITS.glob("*.*"):
        if unit.is_file():
            (tmp_path / unit.name).write_text(re.sub(r"(?m)^(Exec\w+)=.*", r"\1=/bin/true", unit.read_text()))
    checked = subprocess.run(
        ["systemd-analyze", "verify", tmp_path / name], capture_output=True, text=True, check=False
    )
    assert (checked.returncode, [line for line in checked.stderr.splitlines() if "edgeai" in line]) == (0, [])
