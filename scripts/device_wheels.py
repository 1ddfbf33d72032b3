"""Unpacks the device's Python packages as images have them: device_wheels.py ARCHITECTURE FOLDER"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from edgeai.errors import EdgeaiError
from edgeai.imaging.schema import Base, read
from edgeai.imaging.stages import Stages
from edgeai.imaging.wheels import MACHINES, lock_path, make_wheels, unpack_wheels

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    parser = argparse.ArgumentParser(prog="device_wheels", description=__doc__)
    parser.add_argument("architecture", choices=sorted(MACHINES))
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    images, stages = ROOT / "images", Stages(ROOT / ".cache" / "images")
    try:
        base = read(images / "base.toml", Base)
        wheels = make_wheels(stages, lock_path(images, args.architecture), args.architecture, base.python)
        unpack_wheels(wheels, args.folder, base.wheels.leave_out)
    except EdgeaiError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
