"""Boots an image in QEMU and proves that it holds what it promises: boot_image.py QEMU IMAGE [--cuts N] [--only CHECK]

A table of what was seen; exit code 1 if anything did not hold. See scripts/boot_image.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path

from boot_checks import CHECKS
from boot_lab import Lab
from boot_machine import Emulator, Machine, make_key, unpack_image
from boot_raspberry import RaspberryPi
from boot_uboot import UBOOT_CHECKS

ALL_CHECKS = CHECKS | UBOOT_CHECKS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("qemu", type=Path, help="where QEMU is unpacked")
    parser.add_argument("image", type=Path)
    parser.add_argument("--architecture", choices=["amd64", "arm64"], default="amd64")
    parser.add_argument("--machine", choices=["pc", "raspi3b"], default="pc", help="raspi3b: a Raspberry Pi 3's image")
    parser.add_argument("--firmware", choices=["bios", "uefi"], default="uefi")
    parser.add_argument("--accelerator", default="tcg", help="of QEMU: kvm is faster where it works")
    parser.add_argument("--card", type=int, default=4, help="size of the card in GiB")
    parser.add_argument("--memory", type=int, default=1024, help="of the machine, in MiB")
    parser.add_argument("--cuts", type=int, default=50, help="how often the power is cut")
    parser.add_argument("--patience", type=float, default=1.0, help="multiplies all time limits")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the moments at which power is cut")
    parser.add_argument(
        "--keep-unflushed",
        action="store_true",
        help="a cut loses nothing that the card was given; always so on raspi3b",
    )
    parser.add_argument("--only", choices=ALL_CHECKS, action="append", help="this check; several times for several")
    parser.add_argument("--json", type=Path, help="also write what was found there")
    parser.add_argument("--work", type=Path, help="an empty or new folder: disk, console and captures stay there")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgeai-boot-") as name:
        work = args.work or Path(name)
        work.mkdir(parents=True, exist_ok=True)
        if any(work.iterdir()):
            parser.error(f"{work} is not empty")
        pi = args.machine == "raspi3b"
        kind, architecture = (RaspberryPi, "arm64") if pi else (Emulator, args.architecture)
        emulator = kind(args.qemu, architecture, args.firmware, args.accelerator, args.memory)
        image = unpack_image(args.image, work)
        # QEMU's SD card is never told to flush, so that it would forget everything.
        chance = None if pi or args.keep_unflushed else random.Random(args.seed)
        machine = Machine(emulator, image, args.card << 30, work, make_key(work), args.patience, chance)
        lab = Lab(machine, args.cuts, args.seed)
        names = args.only or [name for name in (UBOOT_CHECKS if pi else CHECKS) if chance or name != "stalled-card"]
        try:
            lab.run({name: ALL_CHECKS[name] for name in names})
        finally:
            machine.cut()
    print(lab.table())
    if args.json:
        args.json.write_text(
            json.dumps({"seed": args.seed, "figures": lab.figures, "failures": lab.failures}, indent=1)
        )
    sys.exit(bool(lab.failures))


if __name__ == "__main__":
    main()
