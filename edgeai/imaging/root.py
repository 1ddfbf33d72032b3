"""The root of an image: Debian's packages, edgeai with its wheels, the overlay, and nothing of the build machine."""

from __future__ import annotations

import configparser
import fnmatch
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import edgeai
from edgeai.errors import InvalidInput
from edgeai.imaging.plan import Plan
from edgeai.imaging.tools import Tools
from edgeai.imaging.tree import Entry, Tree
from edgeai.imaging.wheels import unpack_wheels
from edgeai.recipe import recipes_folder

SITE = "usr/lib/edgeai"
IMAGE_FILE = f"{SITE}/image.json"
KEYS = "usr/share/edgeai/keys"
UNITS = "usr/lib/systemd/system"
PROGRAM = f"""#!/bin/sh
# The server is on port 80, and its home is its user's. Root stays root where the system is changed, or files of others
# are read or written.
export PYTHONPATH=/{SITE}
export EDGEAI_HOME="${{EDGEAI_HOME:-/data/edgeai}}" EDGEAI_CACHE="${{EDGEAI_CACHE:-/data/edgeai/cache}}"
case "${{1-}}" in ask | chat | status) export EDGEAI_BOARD="${{EDGEAI_BOARD:-http://127.0.0.1}}" ;; esac
case "$(id -u) ${{1-}}" in
"0 update" | "0 trust" | "0 import" | "0 export") exec python3 -P -m edgeai "$@" ;;
"0 "*) exec setpriv --reuid=edgeai --regid=edgeai --clear-groups python3 -P -m edgeai "$@" ;;
*) exec python3 -P -m edgeai "$@" ;;
esac
"""
# Left by installing packages: of the build machine, of no use on a read-only root, or different each time.
LEFTOVERS = (
    *("etc/apt", "var/lib/apt", "var/cache", "var/log", "var/backups", "var/lib/systemd/random-seed"),
    *("etc/hostname", "etc/resolv.conf", "etc/hosts", "etc/machine-id", "var/lib/dbus/machine-id"),
    *("etc/passwd-", "etc/group-", "etc/shadow-", "etc/gshadow-", "etc/subuid-", "etc/subgid-", "etc/.pwd.lock"),
    *("etc/ld.so.cache~", "var/lib/dpkg/lock", "var/lib/dpkg/lock-frontend", "var/lib/dpkg/triggers/Lock"),
    *("tmp", "run", "dev", "root", "boot", "vmlinuz", "vmlinuz.old", "initrd.img", "initrd.img.old"),
)
LEFTOVER_PATTERNS = ("etc/ssh/ssh_host_*", "var/lib/dpkg/*-old", "*/__pycache__", "*/__pycache__/*", "*.pyc")
_FOLDERS = {"tmp": 0o1777, "run": 0o755, "dev": 0o755, "root": 0o700, "boot": 0o755, "boot/firmware": 0o755,
            "data": 0o755, "var/cache": 0o755, "var/log": 0o755, "etc/edgeai": 0o755}  # fmt: skip


def compile_python(tools: Tools, plan: Plan, folder: Path, at: str) -> None:
    """Byte-compile all below `folder`, which will be at `at`: nothing can be written there on the board.

    The files are not compared with their sources at each start: both lie on a root that never changes.
    """
    command = [f"python{plan.base.python}", "-m", "compileall", "-q", "-j1", "--invalidation-mode", "unchecked-hash"]
    tools.run([*command, "-s", "/in", "-p", at, "/in"], binds={folder: "/in"}, environment={"PYTHONHASHSEED": "0"})


def make_site(plan: Plan, tools: Tools, wheels: Path, folder: Path) -> None:
    """What Python imports on the board: the wheels and edgeai's device half, compiled."""
    unpack_wheels(wheels, folder, plan.base.wheels.leave_out)
    source = Path(edgeai.__file__).parent
    ignore = shutil.ignore_patterns("__pycache__", *plan.base.wheels.build_half)
    shutil.copytree(
        source, folder / "edgeai", ignore=lambda at, names: ignore(at, names) if Path(at) == source else {"__pycache__"}
    )
    shutil.copytree(recipes_folder(), folder / "edgeai" / "recipes", dirs_exist_ok=True)
    compile_python(tools, plan, folder, f"/{SITE}")


def make_root(
    plan: Plan, tools: Tools, rootfs: Path, site: Path, work: Path, *, version: str, trusted: bytes | None
) -> Tree:
    """All entries of the root. `work` is a folder for what is made on the way.

    `trusted`: the public key, as PEM, of whoever may replace the system; without one nobody can.
    """
    tree = Tree.from_tar(rootfs)
    remove_leftovers(tree, plan.base.remove)
    _compile_library(plan, tools, tree, work)
    tree.add_tree(site, SITE)
    tree.add_file("usr/bin/edgeai", PROGRAM.encode(), mode=0o755)
    settle(plan, tree)
    tree.add_tree(plan.overlay)
    tree.add_file(IMAGE_FILE, (json.dumps(image_facts(plan, version), indent=1, sort_keys=True) + "\n").encode())
    if trusted:
        tree.add_file(f"{KEYS}/image.pub", trusted)
    for unit in plan.enabled:
        enable(tree, unit)
    for unit in plan.masked:
        tree.add_link(f"etc/systemd/system/{unit}", "/dev/null")
    return tree


def image_facts(plan: Plan, version: str) -> dict[str, object]:
    """What a board knows of its own image."""
    return {
        "name": plan.base.name,
        "board": plan.board_name,
        "architecture": plan.board.architecture,
        "loader": plan.board.loader,
        "version": version,
        "date": plan.base.date.isoformat(),
        "disk_id": plan.partitions.disk_id,
        "root_bytes": plan.partitions["root-a"].size,
    }


def remove_leftovers(tree: Tree, further: Sequence[str] = ()) -> None:
    """Take out what installing packages left behind and matches `further`; make the folders that have to be there."""
    patterns = (*LEFTOVER_PATTERNS, *further)
    tree.remove(*LEFTOVERS, *(path for path in tree.entries if any(fnmatch.fnmatch(path, one) for one in patterns)))
    for path, mode in _FOLDERS.items():
        tree.add_folder(path, mode=mode)


def enable(tree: Tree, unit: str) -> None:
    """Link a unit from where its [Install] section says, as `systemctl enable` does. Raises `InvalidInput`."""
    name = unit if f"{UNITS}/{unit}" in tree else f"{unit.partition('@')[0]}@.{unit.rpartition('.')[2]}"
    entry = tree.entries.get(f"{UNITS}/{name}")
    if entry is None:
        raise InvalidInput(
            f"there is no unit {unit}", "it is enabled in images/layers, and neither a package nor the overlay has it"
        )
    links = list(_install_links(unit, entry))
    if not links:
        raise InvalidInput(f"unit {unit} has no [Install] section", "it cannot be enabled: another unit starts it")
    for link in links:
        tree.add_link(f"etc/systemd/system/{link}", f"/{UNITS}/{name}")


def _install_links(unit: str, entry: Entry) -> Iterator[str]:
    parser = configparser.RawConfigParser(strict=False, allow_no_value=True, delimiters=("=",), interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(entry.read().decode())
    section = parser["Install"] if parser.has_section("Install") else {}
    for key, kind in (("WantedBy", "wants"), ("RequiredBy", "requires")):
        yield from (f"{target}.{kind}/{unit}" for target in (section.get(key) or "").split())
    yield from (section.get("Alias") or "").split()


def settle(plan: Plan, tree: Tree) -> None:
    """What every machine has to have, where the overlay does not say otherwise. Raises `InvalidInput`."""
    user = plan.base.user
    for path in ("etc/passwd", "etc/group"):
        if any(line.split(":")[2] == str(user.id) for line in tree.entries[path].read().decode().splitlines()):
            raise InvalidInput(f"user id {user.id} is taken in {path}", "choose another in images/base.toml")
    _append(tree, "etc/passwd", f"{user.name}:x:{user.id}:{user.id}:{user.name}:/data/{user.name}:/usr/sbin/nologin\n")
    _append(tree, "etc/group", f"{user.name}:x:{user.id}:\n")
    tree.add_file("etc/machine-id", b"uninitialized\n")
    tree.add_file("etc/hostname", f"{plan.base.name}\n".encode())
    tree.add_file(
        "etc/hosts", f"127.0.0.1 localhost\n127.0.1.1 {plan.base.name}\n::1 localhost ip6-localhost\n".encode()
    )


def _append(tree: Tree, path: str, line: str) -> None:
    tree.add_file(path, tree.entries[path].read() + line.encode())


def _compile_library(plan: Plan, tools: Tools, tree: Tree, work: Path) -> None:
    """Python's own library, compiled as `compile_python` says; Debian's scripts compiled it for its time stamps."""
    library = f"usr/lib/python{plan.base.python}"
    folder = work / "library"
    shutil.rmtree(folder, ignore_errors=True)
    for path, entry in tree.files():
        if path.startswith(f"{library}/") and path.endswith(".py"):
            target = folder / PurePosixPath(path).relative_to(library)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(entry.read())
    compile_python(tools, plan, folder, f"/{library}")
    for compiled in sorted(folder.rglob("*.pyc")):
        tree.add_file(f"{library}/{compiled.relative_to(folder).as_posix()}", compiled)
