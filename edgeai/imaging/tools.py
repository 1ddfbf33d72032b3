"""The tools that build an image: unpacked from Debian's packages, so that every machine builds with the same ones.

The machine itself needs apt, dpkg-deb and Debian's keyring; nothing is installed on it. The tools run in a root folder
of their own (`enter.py`).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from edgeai.errors import InvalidInput, NotFound, ProgramFailed, StateDamaged
from edgeai.imaging.stages import Stages

SUITE = "trixie"
PACKAGES = (
    *(
        "base-files",
        "base-passwd",
        "bash",
        "coreutils",
        "dash",
        "debianutils",
        "diffutils",
        "libc-bin",
        "findutils",
        "grep",
        "gzip",
        "mawk",
        "perl",
        "sed",
        "tar",
    ),
    *(
        "apt",
        "debian-archive-keyring",
        "arch-test",
        "dpkg",
        "mmdebstrap",
        "mount",
        "sqv",
        "qemu-user-static",
        "util-linux",
    ),
    *("bmap-tools", "dosfstools", "e2fsprogs", "erofs-utils", "fdisk", "libarchive13t64", "mtools", "xz-utils", "zstd"),
    *("grub-common", "grub-efi-amd64-bin", "grub-efi-arm64-bin:arm64", "grub-pc-bin", "python3"),
)
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
UNPACKED = "packages.txt"
_ERROR_TAIL = 3000  # characters of a failed program's words


def unheard(line: str) -> None:
    """For programs whose words are only looked at when they fail."""


@dataclass(frozen=True)
class Tools:
    """The tools' root folder, and the mirrors that packages and their security updates come from."""

    root: Path
    mirror: str
    security: str

    @property
    def distribution(self) -> str:
        """The domain of whoever makes the packages, as their os-release has it: nobody is known by it."""
        release = (self.root / "usr" / "lib" / "os-release").read_text(encoding="utf-8")
        home = re.search(r'(?m)^HOME_URL="https?://(?:www\.)?([^/"]+)', release)
        if home is None:
            raise StateDamaged(f"{self.root} has an os-release without HOME_URL", "delete the cache of tools")
        return home[1]

    def run(
        self,
        command: Sequence[str],
        *,
        binds: Mapping[Path, str] | None = None,
        environment: Mapping[str, str] | None = None,
        heard: Callable[[str], None] = unheard,
    ) -> str:
        """Run a tool as root of a world of its own, as `run` does; `binds` puts files of the machine into it."""
        outside = {Path("/etc/hosts"): "/etc/hosts", Path("/etc/resolv.conf"): "/etc/resolv.conf"} | dict(binds or {})
        pairs = [f"--bind={path.resolve()}:{inside}" for path, inside in outside.items() if path.exists()]
        here = [sys.executable, "-m", "edgeai.imaging.enter", *pairs, str(self.root), "--", *command]
        inside = {"PATH": "/usr/sbin:/usr/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC", "HOME": "/root"}
        return run(here, environment=inside | python_path() | dict(environment or {}), heard=heard)


def run(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    heard: Callable[[str], None] = unheard,
) -> str:
    """Run a program and return what it printed, each line `heard` at once.

    Raises `ProgramFailed` with its last words, `NotFound` without it.
    """
    env = None if environment is None else dict(environment)
    try:
        process = subprocess.Popen(
            command,
            env=env,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    except FileNotFoundError as error:
        raise NotFound(
            f"this machine has no {command[0]}", "images are built on Debian or Ubuntu", param="program"
        ) from error
    lines = []
    with process:
        for line in process.stdout or ():
            lines.append(line)
            heard(line)
    said = "".join(lines)
    if process.returncode != 0:
        raise ProgramFailed(f"{' '.join(command)[:200]} ended with {process.returncode}:\n{said[-_ERROR_TAIL:]}")
    return said


def python_path() -> dict[str, str]:
    """What a Python that is started needs to find this edgeai."""
    return {"PYTHONPATH": str(Path(__file__).parents[2])}


def make_tools(stages: Stages) -> Tools:
    """The tools, unpacked once. Raises `InvalidInput` for anybody but root, `NotFound` and `ProgramFailed`."""
    if os.geteuid() != 0:
        raise InvalidInput("images are built by root: files of a system belong to many users", "a container is enough")
    mirror, security = machine_mirrors()
    inputs = {"suite": SUITE, "packages": PACKAGES}
    folder = stages.make("tools", inputs, lambda folder: _unpack_tools(folder, mirror))
    return Tools(folder / "root", mirror, security)


def machine_mirrors() -> tuple[str, str]:
    """The mirrors of Debian and of its security updates that this machine uses. Raises `NotFound` where it has none."""
    try:
        sites = [site.rstrip("/") for site in run(["apt-get", "indextargets", "--format", "$(SITE)"]).splitlines()]
    except NotFound as error:
        raise NotFound(
            "this machine has no apt-get", "images are built on Debian or Ubuntu", param="program"
        ) from error
    mirror = next((site for site in sites if site.endswith("/debian")), None)
    if mirror is None:
        raise NotFound(
            "apt knows no mirror of Debian",
            "on Ubuntu: add one to /etc/apt/sources.list.d, signed by Debian's archive keyring",
            param="mirror",
        )
    return mirror, next((site for site in sites if site.endswith("/debian-security")), f"{mirror}-security")


def download_packages(folder: Path, sources: Sequence[str], packages: Sequence[str], *, alone: bool) -> list[Path]:
    """Fetch `.deb` files and, unless `alone`, what they depend on. `sources` are lines such as "MIRROR trixie main"."""
    environment, archives = own_apt(folder, [f"deb {line}" for line in sources]), folder / "apt" / "cache" / "archives"
    if alone:
        run(["apt-get", "-qq", "download", *packages], environment=environment, folder=archives)
    else:
        run(["apt-get", "-qq", "-y", "--download-only", "install", *packages], environment=environment)
    return sorted(archives.glob("*.deb"))


def own_apt(folder: Path, sources: Sequence[str]) -> dict[str, str]:
    """An apt with a state of its own in `folder`, up to date: the environment that makes apt's programs use it.

    `sources` are lines such as "deb MIRROR trixie main". Raises `NotFound` without Debian's keyring, `ProgramFailed`.
    """
    if not KEYRING.exists():
        raise NotFound(f"there is no {KEYRING}", "apt install debian-archive-keyring", param="keyring")
    apt = folder / "apt"
    for name in ("state/lists/partial", "cache/archives/partial", "etc/apt.conf.d", "etc/preferences.d"):
        (apt / name).mkdir(parents=True)
    (apt / "status").touch()
    lines = (line.replace(" ", f" [signed-by={KEYRING}] ", 1) for line in sources)
    (apt / "sources.list").write_text("".join(f"{line}\n" for line in lines))
    (apt / "apt.conf").write_text(
        f'Dir "{apt}"; Dir::State "state"; Dir::State::status "{apt}/status"; Dir::Cache "cache"; Dir::Etc "etc";\n'
        f'Dir::Etc::sourcelist "{apt}/sources.list"; Dir::Etc::sourceparts "-"; Acquire::Languages "none";\n'
        'APT::Architecture "amd64"; APT::Architectures { "amd64"; "arm64"; }; APT::Sandbox::User "root";\n'
        'APT::Install-Recommends "false";\n' + "".join(f"{line}\n" for line in proxy_settings())
    )
    environment = {"APT_CONFIG": str(apt / "apt.conf"), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    run(["apt-get", "-qq", "update"], environment=environment)
    return environment


def proxy_settings() -> list[str]:
    """The machine's own proxies for apt, as lines of apt.conf."""
    return [
        line for line in run(["apt-config", "dump", "Acquire"]).splitlines() if "::Proxy" in line and '""' not in line
    ]


def unpack(package: Path, root: Path) -> None:
    """Put a package's files into `root`; its scripts are not run."""
    root.mkdir(parents=True, exist_ok=True)
    tar = package.with_suffix(".tar")
    try:
        with tar.open("wb") as file:
            subprocess.run(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=file, check=True)
        run(["tar", "-x", "-C", str(root), "--keep-directory-symlink", "-f", str(tar)])
    finally:
        tar.unlink(missing_ok=True)


def note_packages(folder: Path, packages: Sequence[Path]) -> None:
    """Write down which packages a folder was unpacked from: NAME VERSION ARCHITECTURE, a line for each."""
    lines = sorted(" ".join(unquote(part) for part in path.stem.split("_")) for path in packages)
    (folder / UNPACKED).write_text("".join(f"{line}\n" for line in lines), encoding="ascii")


def _unpack_tools(folder: Path, mirror: str) -> None:
    root = folder / "root"
    packages = download_packages(folder, [f"{mirror} {SUITE} main"], PACKAGES, alone=False)
    for package in sorted(packages, key=lambda path: not path.name.startswith("base-files_")):  # has the merged /usr
        unpack(package, root)
    # What packages' scripts would have done, as far as tools need it.
    for name in ("passwd", "group"):
        shutil.copy(root / "usr" / "share" / "base-passwd" / f"{name}.master", root / "etc" / name)
    (root / "etc" / "hostname").write_text("builder\n")
    for name in ("hosts", "resolv.conf"):
        (root / "etc" / name).touch()
    note_packages(folder, packages)
    shutil.rmtree(folder / "apt")
