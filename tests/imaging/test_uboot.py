"""U-Boot's files: the format of its own tools, and what its environment promises."""

from __future__ import annotations

from edgeai.appliance.uboot import parse_environment
from edgeai.imaging.uboot import ENVIRONMENT_BYTES, environment, script_image
from tests.fixtures.images import IMAGES

# `mkimage -A arm64 -O linux -T script -C none -n edgeai` of this script, with SOURCE_DATE_EPOCH=1790000000.
SCRIPT = b"echo hello\nreset\n"
MKIMAGE = bytes.fromhex(
    "27051956ce948abb6ab13b800000001900000000000000007c90078e05160600656467656169000000000000000000000000000000000000000000"
    "000000000000000011000000006563686f2068656c6c6f0a72657365740a"
)


def test_a_script_is_what_mkimage_makes_of_it() -> None:
    assert script_image(SCRIPT, 1_790_000_000) == MKIMAGE


def test_nothing_stops_a_start_and_no_network_is_asked() -> None:
    block = environment((IMAGES / "boot" / "uboot.env").read_text())
    assert len(block) == ENVIRONMENT_BYTES
    values = parse_environment(block)
    assert values is not None
    assert values["bootdelay"] == "-2"  # not even a key is looked for
    assert values["stdin"] == "serial"
    assert values["bootcmd"].endswith("source ${scriptaddr}; reset")
    assert "preboot" not in values  # would start USB
