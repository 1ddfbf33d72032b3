"""Power-safe writes: after a cut there is the old content or the new one, never half of either.

A file is written under a temporary name in its own folder, synced and renamed; the folder is synced last, because the
rename itself lives there. Temporaries start with `TEMPORARY_PREFIX` and are locked (flock) for as long as their writer
lives, so that `clean_stale` can tell an abandoned one from one in use.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from io import FileIO
from pathlib import Path

from edgeai.errors import OutOfDisk

TEMPORARY_PREFIX = ".edgeai-tmp-"
REPLACED_PREFIX = ".edgeai-old-"  # followed by the name that is being replaced
SECTOR_BYTES = 512  # what a disk writes whole or not at all
YOUNG_SECONDS = 60.0  # a temporary exists for a moment before it is locked
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_NO_EXCHANGE = frozenset({errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM})
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2

Chunk = bytes | bytearray | memoryview
Data = Chunk | Iterable[Chunk]


def write_file(path: Path, data: Data, *, size: int | None = None, mode: int = 0o644) -> int:
    """Replace `path` by `data`, whole or in chunks, and return the number of bytes written.

    `mode` says who may read it; nobody else ever could. `size` is how many bytes are expected, for the message of the
    `OutOfDisk` that a full disk raises.
    """
    descriptor, name = tempfile.mkstemp(prefix=TEMPORARY_PREFIX, dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            os.fchmod(file.fileno(), mode)
            written = write_chunks(file, data, path, size=size)
            temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
    return written


def overwrite_sector(path: Path, data: bytes, sector: int = 0) -> None:
    """Replace `SECTOR_BYTES` of a file or a disk, in place and synced, by as many or, at a file's end, what is there.

    For FAT, where a rename over another file is several writes, after which both names may share the same clusters. A
    disk writes a sector whole or not at all. Raises ValueError for another size of `data`.
    """
    with path.open("r+b", buffering=0) as file:
        offset = sector * SECTOR_BYTES
        if len(data) != min(SECTOR_BYTES, file.seek(0, os.SEEK_END) - offset):  # a disk's st_size is 0
            raise ValueError(f"{len(data)} bytes do not replace sector {sector} of {path}")
        os.pwrite(file.fileno(), data, offset)
        os.fsync(file.fileno())


def publish_file(temporary: Path, final: Path) -> None:
    """Give a complete file its name, synced; both must be on one filesystem."""
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.rename(final)
    sync_folder(final.parent)


def write_chunks(file: FileIO, data: Data, path: Path, *, size: int | None = None) -> int:
    """Write `data` to an open file and sync it; `path` names it in the `OutOfDisk` that a full disk raises.

    The file has no buffer: one that the disk has no room for would be written, and fail, once more at its closing.
    """
    attempted = 0
    try:
        for chunk in chunks_of(data):
            attempted += len(chunk)
            write_all(file, chunk)
        os.fsync(file.fileno())
    except OSError as error:
        raise_if_full(error, path, size or attempted)
        raise
    return attempted


def write_all(file: FileIO, data: Chunk) -> None:
    """Write all of `data`: a disk that fills up may take a part."""
    rest = memoryview(data).cast("B")
    while rest:
        rest = rest[file.write(rest) :]


def chunks_of(data: Data) -> Iterable[Chunk]:
    """`data` as chunks, whichever way it was given."""
    return (data,) if isinstance(data, (bytes, bytearray, memoryview)) else data


def raise_if_full(error: OSError, path: Path, needed: int) -> None:
    """Turn the system's "no space left" into `OutOfDisk`; any other error is left to the caller."""
    if error.errno in _FULL:
        raise no_room(path, needed) from error


def no_room(path: Path, needed: int) -> OutOfDisk:
    """The error of a disk too full to hold `needed` more bytes at `path`."""
    free = shutil.disk_usage(path.parent).free
    return OutOfDisk(
        f"no room for {path.name}: at least {megabytes(needed)} needed, {megabytes(free)} free in {path.parent}",
        "free some space, or choose a folder on another disk",
    )


def megabytes(size: int) -> str:
    """A size in bytes as people read it, in decimal megabytes."""
    return f"{size / 1e6:.1f} MB"


@contextlib.contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """A locked, empty folder in `parent`, removed at the end unless `publish_folder` renamed it."""
    path = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=parent))
    path.chmod(0o755)
    with locked_folder(path):
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)  # what cannot be removed now is stale later


def publish_folder(temporary: Path, final: Path) -> None:
    """Make `temporary` appear as `final`, synced, at once; an existing `final` is replaced and removed.

    Both must be on one filesystem. At no moment is a half-written folder visible as `final`.
    """
    sync_tree(temporary)
    if not final.exists():
        temporary.rename(final)
    elif not _exchange(temporary, final):
        _replace_in_two_steps(temporary, final)
    sync_folder(final.parent)
    shutil.rmtree(temporary, ignore_errors=True)  # after an exchange this is the old content


def remove_folder(path: Path) -> None:
    """Remove a published folder: it disappears at once, and a power cut leaves only a temporary to clean."""
    with temporary_folder(path.parent) as temporary:
        path.rename(temporary / path.name)
        sync_folder(path.parent)


def clean_stale(folder: Path) -> list[Path]:
    """Undo what a crash left in `folder`: remove abandoned temporaries, restore a folder whose replacement was cut.

    Returns the paths that were removed or restored. Temporaries of a living writer are not touched.
    """
    handled = []
    for path in sorted(folder.glob(f"{TEMPORARY_PREFIX}*")):
        if not _young(path) and _abandoned(path):
            _remove(path)
            handled.append(path)
    for path in sorted(folder.glob(f"{REPLACED_PREFIX}*")):
        if _abandoned(path):
            _restore_or_remove(path)
            handled.append(path)
    return handled


def sync_folder(path: Path) -> None:
    """Flush a folder's own entries (names, renames) to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(path: Path) -> None:
    """Flush every file and folder under `path`, deepest first, then `path` itself."""
    for root, _, names in os.walk(path, topdown=False):
        for name in names:
            with (Path(root) / name).open("rb") as file:
                os.fsync(file.fileno())
        sync_folder(Path(root))


@contextlib.contextmanager
def locked_folder(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a folder alone. Without `wait` it raises BlockingIOError where somebody else has it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def shared_folder(path: Path) -> int:
    """A descriptor that keeps others from holding a folder alone, until it is closed."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names in one atomic step (Linux's renameat2); False where the system cannot."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _NO_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), str(one), None, str(other))


def _replace_in_two_steps(temporary: Path, final: Path) -> None:
    """For filesystems without an exchange: a crash between the renames is undone by `clean_stale`."""
    old = final.with_name(REPLACED_PREFIX + final.name)
    _remove(old)
    with locked_folder(final):
        final.rename(old)
        temporary.rename(final)
        sync_folder(final.parent)
        shutil.rmtree(old, ignore_errors=True)


def _young(path: Path) -> bool:
    """Whether `path` was made just now, by a clock that may have been set since (boards have no battery)."""
    try:
        return abs(time.time() - path.lstat().st_mtime) < YOUNG_SECONDS
    except FileNotFoundError:
        return True


def _abandoned(path: Path) -> bool:
    """Whether nobody holds the lock that a living writer holds."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _restore_or_remove(old: Path) -> None:
    final = old.with_name(old.name.removeprefix(REPLACED_PREFIX))
    if final.exists():
        _remove(old)
    else:
        old.rename(final)
        sync_folder(final.parent)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
