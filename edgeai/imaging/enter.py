"""A command in a root folder and namespaces of its own:

    python -m edgeai.imaging.enter [--bind OUTSIDE:INSIDE]... ROOT -- COMMAND

Packages' scripts want to be root, to mount /proc and, for another processor, to have QEMU registered with the kernel.
All of that a user namespace gives them without anything of the machine being touched: its binfmt_misc is its own (Linux
6.7). Started as a program because only a process with one thread may enter a user namespace. Exits as the command does.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

_NEW_NAMESPACES = 0x10000000 | 0x00020000 | 0x20000000 | 0x08000000 | 0x04000000  # user, mount, pid, ipc, uts
_MS_BIND, _MS_REC, _MS_PRIVATE, _MS_RDONLY, _MS_REMOUNT = 0x1000, 0x4000, 0x40000, 0x1, 0x20
_PR_SET_PDEATHSIG = 1
_IDENTITY = "0 0 65536\n"  # as many user and group ids as Debian hands out
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_BINFMT = Path("/proc/sys/fs/binfmt_misc")

_libc = ctypes.CDLL(None, use_errno=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return how it ended."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--bind", action="append", default=[], metavar="OUTSIDE:INSIDE")
    parser.add_argument("root", type=Path)
    parser.add_argument("command", nargs="+", help="after --")
    args = parser.parse_args(arguments)
    binds = [tuple(pair.split(":", 1)) for pair in args.bind]
    ready, entered = os.pipe()
    mapped, go = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(go)
        _end_with_parent()
        _check(_libc.unshare(_NEW_NAMESPACES), "unshare")
        os.write(entered, b"1")
        if os.read(mapped, 1) != b"1":
            os._exit(1)
        os._exit(_as_first_process(args.root, binds, args.command))
    os.close(entered)
    if os.read(ready, 1) == b"1":
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{child}/{name}").write_text(_IDENTITY, encoding="ascii")
        os.write(go, b"1")
    os.close(go)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _as_first_process(root: Path, binds: Sequence[tuple[str, ...]], command: Sequence[str]) -> int:
    """The namespace's process 1 is a child of whoever made it; it ends with everything in it."""
    child = os.fork()
    if child == 0:
        _end_with_parent()
        try:
            _prepare(root, binds)
            os.execvp(command[0], list(command))  # noqa: S606
        except OSError as error:
            print(f"error: {command[0]} cannot be run in {root}: {error}", file=sys.stderr)
        os._exit(127)
    return abs(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def _prepare(root: Path, binds: Sequence[tuple[str, ...]]) -> None:
    _mount("none", Path("/"), flags=_MS_REC | _MS_PRIVATE)
    _mount(str(root), root, flags=_MS_BIND | _MS_REC)
    _mount("tmpfs", root / "dev", "tmpfs", options="mode=755")
    for name in _DEVICES:
        (root / "dev" / name).touch()
        _mount(f"/dev/{name}", root / "dev" / name, flags=_MS_BIND)
    for name, there in (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        (root / "dev" / name).symlink_to(there)
    (root / "dev" / "shm").mkdir()
    for outside, inside in binds:
        target = root / inside.lstrip("/")
        if Path(outside).is_dir():
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.touch()
        _mount(outside, target, flags=_MS_BIND | _MS_REC)
    _mount("proc", root / "proc", "proc")
    os.chroot(root)
    os.chdir("/")
    _mount("binfmt_misc", _BINFMT, "binfmt_misc")
    for rule in sorted(Path("/usr/lib/binfmt.d").glob("qemu-aarch64.conf")):
        (_BINFMT / "register").write_text(rule.read_text(encoding="utf-8").strip(), encoding="utf-8")


def _mount(source: str, target: Path, kind: str | None = None, *, flags: int = 0, options: str | None = None) -> None:
    encoded = [os.fsencode(source), os.fsencode(target), kind and kind.encode(), flags, options and options.encode()]
    _check(_libc.mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[4]), f"mount {target}")


def _end_with_parent() -> None:
    """Whoever is killed takes what it started along: a build that was cut leaves nothing running."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL), "prctl")


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


if __name__ == "__main__":
    sys.exit(main())
