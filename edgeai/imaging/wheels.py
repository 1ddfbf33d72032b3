"""Python packages of the device: wheels locked by digest, unpacked beside Debian's Python; nothing is built or run.

A lock file is pip's own format, one line for each wheel: `numpy==2.3.5 --hash=sha256:...`. It names no index.
"""

from __future__ import annotations

import fnmatch
import json
import re
import shutil
import sys
import tomllib
import zipfile
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeai.errors import InvalidInput, NotFound, SourceError
from edgeai.imaging.schema import Architecture
from edgeai.imaging.stages import Stages
from edgeai.imaging.tools import run
from edgeai.package.package import file_digest

MACHINES: dict[Architecture, str] = {"arm64": "aarch64", "amd64": "x86_64"}
_GLIBC = 41  # trixie's is 2.41; it runs wheels made for any older one
_OLDEST_GLIBC = 17
_LINE = re.compile(r"^([A-Za-z0-9._-]+)==([\w.+!]+) --hash=sha256:([0-9a-f]{64})$")
_NOT_INSTALLED = ("scripts", "headers", "data")


@dataclass(frozen=True)
class LockedWheel:
    """One line of a lock file."""

    name: str
    version: str
    sha256: str


def lock_path(images: Path, architecture: Architecture) -> Path:
    """Where the lock of an architecture is."""
    return images / f"wheels-{MACHINES[architecture]}.lock"


def read_lock(path: Path) -> tuple[LockedWheel, ...]:
    """The wheels of a lock file. Raises `NotFound` and `InvalidInput`, naming file and line."""
    if not path.exists():
        raise NotFound(f"there is no {path}", "`./scripts/build_image --lock-wheels` makes it", param="lock")
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        match = _LINE.match(line)
        if not match:
            raise InvalidInput(f"{path}, line {number}: {line!r} is not NAME==VERSION --hash=sha256:DIGEST")
        found.append(LockedWheel(*match.groups()))
    return tuple(found)


def write_lock(
    path: Path, architecture: Architecture, python: str, requirements: Sequence[str], without: Collection[str] = ()
) -> int:
    """Resolve requirements to wheels for that machine and write the lock; how many there are.

    Packages of a name in `without` are left out of it. Raises `ProgramFailed`, and `InvalidInput` for a name that is
    not among them.
    """
    report = path.with_suffix(".report")
    try:
        run([*_pip("install", architecture, python), "--dry-run", "--ignore-installed", "--target", str(path.parent),
             "--report", str(report), *requirements])  # fmt: skip
        packages = json.loads(report.read_text(encoding="utf-8"))["install"]
    finally:
        report.unlink(missing_ok=True)
    lines = {
        normal_name(one["metadata"]["name"]): f"{normal_name(one['metadata']['name'])}=={one['metadata']['version']} "
        f"--hash=sha256:{one['download_info']['archive_info']['hashes']['sha256']}"
        for one in packages
    }
    if unknown := set(without) - lines.keys():
        raise InvalidInput(f"base.toml: wheels.without has {', '.join(sorted(unknown))}, which nothing asks for")
    kept = sorted(lines.keys() - set(without))
    head = f"# Made by ./scripts/build_image --lock-wheels, for Python {python} on {MACHINES[architecture]}.\n"
    path.write_text(head + "".join(f"{lines[name]}\n" for name in kept), encoding="utf-8")
    return len(kept)


def normal_name(name: str) -> str:
    """A package's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def device_requirements(pyproject: Path) -> list[str]:
    """What edgeai's device half needs: its dependencies without any extra."""
    with pyproject.open("rb") as file:
        requirements: list[str] = tomllib.load(file)["project"]["dependencies"]
    return requirements


def make_wheels(stages: Stages, lock: Path, architecture: Architecture, python: str) -> Path:
    """The folder with all wheels of a lock, their digests checked. Raises `ProgramFailed` and `SourceError`."""
    wheels = read_lock(lock)

    def download(folder: Path) -> None:
        pip = _pip("download", architecture, python)
        run([*pip, "--no-deps", "--require-hashes", "-r", str(lock), "-d", str(folder)])
        _check(folder, wheels)

    inputs = {"wheels": sorted(one.sha256 for one in wheels)}
    return stages.make(f"wheels-{MACHINES[architecture]}", inputs, download)


def unpack_wheels(folder: Path, site: Path, leave_out: Iterable[str] = ()) -> None:
    """Unpack every wheel of a folder into `site`; paths that match a pattern of `leave_out` are not."""
    patterns = tuple(leave_out)
    for wheel in sorted(folder.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.infolist():
                path = _installed_path(member.filename)
                if path and not member.is_dir() and not any(fnmatch.fnmatch(path, one) for one in patterns):
                    target = site / path
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with archive.open(member) as source, target.open("wb") as file:
                        shutil.copyfileobj(source, file)


def _installed_path(member: str) -> str | None:
    """Where a member of a wheel goes, from site-packages on; None for what a device does not need."""
    first, _, rest = member.partition("/")
    if ".." in member.split("/") or member.startswith("/"):
        raise SourceError(f"a wheel has the path {member!r}", "this wheel is not to be trusted")
    if not first.endswith(".data"):
        return member
    kind, _, inside = rest.partition("/")
    return None if kind in _NOT_INSTALLED else inside


def _check(folder: Path, wheels: Sequence[LockedWheel]) -> None:
    there = {file_digest(path) for path in folder.glob("*.whl")}
    missing = [f"{one.name}=={one.version}" for one in wheels if one.sha256 not in there]
    if missing or len(there) != len(wheels):
        raise SourceError(f"wheels that are not what the lock says: {', '.join(missing) or 'more than it names'}")


def _pip(command: str, architecture: Architecture, python: str) -> list[str]:
    version = python.replace(".", "")
    tags = [*(f"manylinux_2_{minor}" for minor in range(_GLIBC, _OLDEST_GLIBC - 1, -1)), "manylinux2014"]
    platforms = [f"{tag}_{MACHINES[architecture]}" for tag in tags]
    return [
        *(sys.executable, "-m", "pip", command, "--quiet", "--no-input", "--disable-pip-version-check"),
        *("--only-binary=:all:", "--implementation", "cp", "--python-version", version),
        *(part for abi in (f"cp{version}", "abi3", "none") for part in ("--abi", abi)),
        *(part for platform in platforms for part in ("--platform", platform)),
    ]
