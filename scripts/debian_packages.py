"""Unpacks packages of Debian into a folder: debian_packages.py FOLDER PACKAGE...

Their scripts are not run, and nothing is installed on this machine, which needs apt and Debian's keyring.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from edgeai.errors import EdgeaiError
from edgeai.imaging.tools import SUITE, download_packages, machine_mirrors, own_apt, run, unpack


def main() -> int:
    parser = argparse.ArgumentParser(prog="debian_packages", description=__doc__)
    parser.add_argument("folder", type=Path, help="new, or with links that files are to be put through")
    parser.add_argument("packages", nargs="+", metavar="PACKAGE", help="of amd64, or NAME:arm64")
    parser.add_argument("--alone", action="store_true", help="without what they depend on")
    parser.add_argument("--source", action="store_true", help="the packages' sources, as Debian has them")
    args = parser.parse_args()
    folder = args.folder.absolute()
    try:
        source = f"{machine_mirrors()[0]} {SUITE} main"
        if args.source:
            download_sources(folder, source, args.packages)
        else:
            for package in download_packages(folder, [source], args.packages, alone=args.alone):
                unpack(package, folder)
    except EdgeaiError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    shutil.rmtree(folder / "apt")
    return 0


def download_sources(folder: Path, source: str, packages: Sequence[str]) -> None:
    environment = own_apt(folder, [f"deb-src {source}"])
    run(["apt-get", "-qq", "source", "--download-only", *packages], environment=environment, folder=folder)


if __name__ == "__main__":
    sys.exit(main())
