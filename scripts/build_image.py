"""`build_image`: an SD card's image from declared data."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from edgeai.appliance.system_update import ROOT as ROOT_IMAGE
from edgeai.bundle.keys import load_signing_key, public_pem
from edgeai.errors import EdgeaiError, ValidationFailed
from edgeai.imaging.disk import copy_image
from edgeai.imaging.image import Built, Wanted, build, version_of
from edgeai.imaging.plan import Plan, board_names, make_plan
from edgeai.imaging.release import publish
from edgeai.imaging.stages import Stages
from edgeai.imaging.twice import PACKAGES, build_again, differences
from edgeai.imaging.wheels import MACHINES, device_requirements, lock_path, write_lock
from edgeai.package.package import file_digest

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "images"


def main() -> int:
    parser = argparse.ArgumentParser(prog="build_image", description=__doc__)
    parser.add_argument("--board", choices=board_names(IMAGES))
    parser.add_argument("--model", action="append", default=[], metavar="RECIPE|FOLDER", help="several times")
    parser.add_argument("--out", type=Path, default=ROOT / "dist" / "images", help="folder for the files")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "images", help="folder of finished stages")
    parser.add_argument(
        "--version", help="of the system, for updates to compare; the date in images/base.toml unless told"
    )
    parser.add_argument("--key", type=Path, help="a private key: signs, and the image trusts its public half")
    parser.add_argument("--url", default="", help="where the files will be published, for Raspberry Pi Imager's list")
    parser.add_argument("--only-disk", action="store_true", help="the disk alone, not what is published with it")
    parser.add_argument("--twice", action="store_true", help="build root and disk again and compare: all bytes alike")
    parser.add_argument("--accept-licence", action="store_true", help="of models that are not open")
    parser.add_argument("--lock-wheels", action="store_true", help="resolve the device's Python packages anew")
    args = parser.parse_args()
    try:
        if args.lock_wheels:
            lock()
        elif args.board and args.model:
            make(args)
        else:
            parser.error("--board and --model are needed")
    except EdgeaiError as error:
        say(f"error: {error.message}")
        if error.hint:
            say(f"  {error.hint}")
        return 1
    return 0


def make(args: argparse.Namespace) -> None:
    started = time.monotonic()
    plan = make_plan(IMAGES, args.board)
    stages = Stages(args.cache.absolute(), progress)
    version = version_of(plan, args.version)
    key = load_signing_key(args.key) if args.key else None
    trusted = public_pem(key.public_key().public_bytes_raw()) if key else None
    wanted = Wanted(tuple(args.model), version, trusted, args.accept_licence)
    built = build(stages, plan, wanted)
    if args.twice:
        compare(stages, plan, wanted, built)
    disk = built.disk
    if args.only_disk:
        args.out.mkdir(parents=True, exist_ok=True)
        disk = args.out / built.disk.name
        copy_image(built.disk, disk)
    else:
        release = publish(plan, built, args.out, version=version, url=args.url, key=key, progress=progress)
        disk = release.path(".img.xz")
    say(f"{args.board}: {time.monotonic() - started:.0f} s")
    print(disk)


def compare(stages: Stages, plan: Plan, wanted: Wanted, built: Built) -> None:
    """Build it once more. Raises `ValidationFailed` with the names of what differs."""
    again = build_again(stages, plan, wanted)
    with tempfile.TemporaryDirectory(dir=stages.cache) as work:
        different = differences(plan, built, again, Path(work))
    if different:
        moved = f"/{PACKAGES}" in different
        raise ValidationFailed(
            "".join(["a second build differs:", *(f"\n  {name}" for name in different)]),
            "Debian's mirror has newer packages: delete rootfs-* in the cache, and build both today" if moved else "",
        )
    for path in (built.system / ROOT_IMAGE, built.disk):
        say(f"twice the same: {path.name}, {path.stat().st_size:,} bytes, sha256 {file_digest(path)}")
    shutil.rmtree(again.disk.parents[1])


def lock() -> None:
    base = make_plan(IMAGES, board_names(IMAGES)[0]).base
    for architecture in MACHINES:
        path = lock_path(IMAGES, architecture)
        count = write_lock(
            path, architecture, base.python, device_requirements(ROOT / "pyproject.toml"), base.wheels.without
        )
        say(f"{path}: {count} wheels")


def progress(step: str, done: int = 0, total: int = 0) -> None:
    """Each step once; what a step counts is for a terminal."""
    if not done:
        say(step)
    elif sys.stderr.isatty():
        print(f"\r  {done:,} of {total:,}", end="" if done < total else "\n", file=sys.stderr)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
