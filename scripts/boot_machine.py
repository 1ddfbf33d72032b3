"""An emulated machine with a copy of an image as its disk: started, asked over HTTP and SSH, and cut off the power."""

from __future__ import annotations

import http.client
import os
import random
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from boot_card import SECTOR, Card
from boot_control import ADDRESS, NETWORK_CARD

MOST_CRASHES = 5
_TABLE = 0x1BE  # of partitions, in the first sector
MAC = bytes.fromhex("525400123456")  # QEMU's first network card
PORTS = {"http": 80, "ssh": 22}
BOOT_ID = "cat /proc/sys/kernel/random/boot_id"  # another one at each start
HOST = "10.0.2.2"  # this machine, seen from an emulated one


@dataclass(frozen=True)
class Emulator:
    """QEMU, unpacked from Debian's packages under `folder`. `accelerator` is QEMU's: tcg or kvm."""

    folder: Path
    architecture: str  # amd64 or arm64
    firmware: str  # bios or uefi
    accelerator: str
    memory_mib: int = 1024
    network_card: ClassVar[str] = "virtio-net-pci,romfile="

    def prepare(self, disk: Path, work: Path) -> None:
        """Take from the card what QEMU needs in a file."""

    def command(self, card: str, capture: Path, serial: Path, ports: Mapping[str, int], work: Path) -> list[str]:
        """How QEMU is called; `card` is the file or the address of the card's content.

        Its own loader and libraries are used: they are newer than this machine's may be.
        """
        libraries = self.folder / "usr/lib/x86_64-linux-gnu"
        program = "qemu-system-x86_64" if self.architecture == "amd64" else "qemu-system-aarch64"
        forwarded = ",".join(f"hostfwd=tcp:127.0.0.1:{ports[name]}-:{port}" for name, port in PORTS.items())
        return [
            *(str(libraries / "ld-linux-x86-64.so.2"), "--library-path", str(libraries)),
            str(self.folder / "usr/bin" / program),
            *("-L", str(self.folder / "usr/share/qemu"), "-L", str(self.folder / "usr/share/seabios")),
            *self._machine(work),
            *("-display", "none", "-monitor", "none", "-no-user-config"),
            *("-qmp", f"unix:{work / ADDRESS},server=on,wait=off"),
            *self._card_and_console(card, serial),
            # The capture has what the guest sends into the network, whoever it is for.
            *("-netdev", f"user,id={NETWORK_CARD},{forwarded}"),
            *("-device", f"{self.network_card},netdev={NETWORK_CARD},mac={MAC.hex(':')}"),
            *("-object", f"filter-dump,id=dump,netdev={NETWORK_CARD},file={capture}"),
        ]

    def _card_and_console(self, card: str, serial: Path) -> list[str]:
        drive = ["-drive", f"file={card},format=raw,if=none,id=card", "-device", "virtio-blk-pci,drive=card"]
        return ["-smp", "2", "-m", str(self.memory_mib), "-serial", f"file:{serial}", *drive]

    def _machine(self, work: Path) -> list[str]:
        if self.architecture == "arm64":
            code, variables = "AAVMF/AAVMF_CODE.no-secboot.fd", "AAVMF/AAVMF_VARS.fd"
            machine = ["-M", "virt", "-cpu", "cortex-a72", "-device", "i6300esb"]
        else:
            code, variables = "OVMF/OVMF_CODE_4M.fd", "OVMF/OVMF_VARS_4M.fd"
            # What a virtual machine of its own cannot pass on would end QEMU.
            machine = [
                "-M",
                "q35",
                "-accel",
                self.accelerator,
                "-cpu",
                "max,arch-capabilities=off",
                "-device",
                "i6300esb",
            ]
        if self.firmware == "bios":
            return machine
        stored = work / "uefi-variables.fd"
        if not stored.exists():
            stored.write_bytes((self.folder / "usr/share" / variables).read_bytes())
        drive = "if=pflash,format=raw,unit="
        flash = ["-drive", f"{drive}0,readonly=on,file={self.folder / 'usr/share' / code}"]
        return [*machine, *flash, "-drive", f"{drive}1,file={stored}"]


@dataclass
class Machine:
    """One machine with its disk. `patience` multiplies every time limit: emulation without KVM is slow.

    With `chance` its card forgets at a cut what it was not told to flush, as that decides.
    """

    emulator: Emulator
    image: Path  # as it was built
    card_bytes: int
    work: Path
    key: Path
    patience: float = 1.0
    chance: random.Random | None = None
    disk: Path = field(init=False)
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    captures: list[Path] = field(default_factory=list)
    ports: dict[str, int] = field(default_factory=dict)
    crashes: int = 0  # of QEMU itself
    forgotten: list[int] = field(default_factory=list)  # writes that were not safe, of each cut
    _cards: int = 0
    _card: Card | None = None
    _stick: Path | None = None

    def __post_init__(self) -> None:
        self.fresh_card()

    def fresh_card(self) -> None:
        """Write the image to a new card."""
        self._cards += 1
        self.disk = self.work / f"card-{self._cards}.img"
        copy_image(self.image, self.disk, self.card_bytes)

    def start(self, stick: Path | None = None) -> None:
        """Switch it on, with a USB stick plugged in or without."""
        self._stick = stick
        self.ports = {name: free_port() for name in PORTS}
        self.captures.append(self.work / f"net-{len(self.captures)}.pcap")
        serial = self.work / "serial.log"
        card = str(self.disk)
        if self.chance is not None:
            self._card = Card(self.disk, self.work / "card", self.chance)
            card = f"nbd+unix:///?socket={self._card.address}"
        self.emulator.prepare(self.disk, self.work)
        command = self.emulator.command(card, self.captures[-1], serial, self.ports, self.work)
        if stick is not None:
            command += ["-drive", f"file={stick},format=raw,if=none,id=stick"]
            command += ["-device", "qemu-xhci", "-device", "usb-storage,drive=stick"]
        with (self.work / "qemu.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        self.started = time.monotonic()

    def cut(self) -> None:
        """Cut the power: nothing that runs in it is told."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None
        self._forget()

    def stall(self) -> None:
        """Its card answers nothing from now on. Raises ValueError where it has none that can be told so."""
        if self._card is None:
            raise ValueError("this machine's card is a file, which always answers")
        self._card.answers.clear()

    def end_stall(self) -> None:
        """Its card answers again, first what it was asked meanwhile."""
        if self._card is not None:
            self._card.answers.set()

    def console(self) -> str:
        """What its console has shown since it was switched on."""
        return (self.work / "serial.log").read_text(errors="replace")

    def _forget(self) -> None:
        if self._card is not None:
            self.forgotten.append(self._card.cut())
            self._card = None

    def ready_after(self, within: float = 180.0) -> float:
        """Seconds from switching it on until it is ready. Raises TimeoutError with what its console said last."""
        return self._await("/health/ready", within)

    def _await(self, path: str, within: float) -> float:
        deadline = time.monotonic() + within * self.patience
        while time.monotonic() < deadline:
            if self.process is None:
                raise TimeoutError("the machine is off")
            if self.process.poll() is not None:
                self._crashed()
            if self.status(path) == http.HTTPStatus.OK:
                return time.monotonic() - self.started
            time.sleep(0.5)
        console = self.console()[-2000:]
        raise TimeoutError(f"not ready after {within * self.patience:.0f} s; its console ends with:\n{console}")

    def _crashed(self) -> None:
        """QEMU itself has crashed, as it does now and then with several threads: that is a power cut, and no fault.

        Raises TimeoutError when it goes on so.
        """
        said = (self.work / "qemu.log").read_text()[-800:]
        self.crashes += 1
        if self.crashes > MOST_CRASHES:
            raise TimeoutError(f"QEMU has ended {self.crashes} times: {said}")
        self._forget()
        print(f"  QEMU has crashed, it is started again: {said}", file=sys.stderr, flush=True)
        self.start(self._stick)

    def status(self, path: str) -> int | None:
        """HTTP status of a page; None where nobody answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports["http"], timeout=30)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def lets_in(self, port: str) -> bool:
        """Whether something answers behind a forwarded port: QEMU accepts at once, and hangs up where nobody does."""
        try:
            with socket.create_connection(("127.0.0.1", self.ports[port]), timeout=5) as connection:
                return bool(connection.recv(1))
        except OSError:
            return False

    def run(self, script: str, *, within: float = 120.0, check: bool = True) -> str:
        """What a shell script prints that runs there as root, by SSH. Raises RuntimeError where it fails."""
        done = subprocess.run(
            self._ssh(f"sh -c {shlex.quote(script)}"),
            capture_output=True,
            text=True,
            timeout=within * self.patience,
            stdin=subprocess.DEVNULL,
        )
        if check and done.returncode != 0:
            raise RuntimeError(
                f"{script[:200]!r} ended with {done.returncode}: {done.stdout[-500:]}{done.stderr[-1500:]}"
            )
        return done.stdout

    def _ssh(self, command: str) -> list[str]:
        options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "ConnectTimeout=20"]
        options += ["ServerAliveInterval=10", "ServerAliveCountMax=6"]
        how = ["-i", str(self.key), "-p", str(self.ports["ssh"]), *(f"-o{one}" for one in options)]
        return ["ssh", *how, "root@127.0.0.1", command]

    def fetch(self, script: str, target: Path) -> None:
        """Keep what a shell script prints that runs there as root."""
        with target.open("wb") as file:
            subprocess.run(self._ssh(script), stdout=file, check=True, timeout=600 * self.patience)

    def send(self, source: Path, path: str) -> None:
        """Copy a file into it, down to its disk."""
        with source.open("rb") as file:
            command = self._ssh(f"cat >{path} && sync {path}")
            subprocess.run(command, stdin=file, check=True, timeout=600 * self.patience)

    def restart(self, within: float) -> None:
        """Let it start again by itself, and wait until it lets the holder of the key in."""
        before = self.run(BOOT_ID)
        self.run("systemctl reboot", check=False)
        deadline = time.monotonic() + within * self.patience
        while self.run(BOOT_ID, check=False) in ("", before):
            if time.monotonic() > deadline:
                raise TimeoutError(f"it did not come back; its console ends with:\n{self.console()[-2000:]}")
            time.sleep(2)

    def await_ssh(self, within: float = 120.0) -> None:
        """Wait until it lets the holder of the key in."""
        deadline = time.monotonic() + within * self.patience
        while not self.lets_in("ssh"):
            if time.monotonic() > deadline:
                raise TimeoutError("nobody is let in by SSH, although there is a key")
            time.sleep(0.5)


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port: int = trial.getsockname()[1]
        return port


def make_key(folder: Path) -> Path:
    """A pair of SSH keys for one run."""
    path = folder / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "boot_image", "-f", str(path)], check=True)
    return path


def unpack_image(image: Path, work: Path) -> Path:
    """The image itself, of one that may be compressed."""
    if image.suffix != ".xz":
        return image
    target = work / image.stem
    with target.open("wb") as file:
        subprocess.run(["xz", "-dc", "-T0", str(image)], stdout=file, check=True)
    return target


def copy_image(image: Path, disk: Path, size: int) -> None:
    """Write an image to a disk of `size` bytes, with holes where it has them."""
    subprocess.run(["cp", "--sparse=always", str(image), str(disk)], check=True)
    os.truncate(disk, size)


def make_stick(stick: Path, files: list[Path]) -> None:
    """A USB stick's content: a FAT file system with these files in its top folder."""
    stick.unlink(missing_ok=True)
    size = sum(path.stat().st_size for path in files) + (16 << 20)
    subprocess.run(["mformat", "-C", "-T", str(size // SECTOR), "-i", str(stick), "::"], check=True)
    subprocess.run(["mcopy", "-i", str(stick), *map(str, files), "::"], check=True)


def partition(disk: Path, number: int) -> tuple[int, int]:
    """Where the partition of an MBR is that has this number, and its size, in bytes."""
    with disk.open("rb") as file:
        entry = file.read(SECTOR)[_TABLE + 16 * (number - 1) :][:16]
    start, size = (int.from_bytes(entry[at : at + 4], "little") * SECTOR for at in (8, 12))
    return start, size


def write_to_boot(disk: Path, files: Mapping[str, str]) -> None:
    """Put files onto the boot partition, as people do on another computer."""
    start, _ = partition(disk, 1)
    for name, text in files.items():
        command = ["mcopy", "-o", "-i", f"{disk}@@{start}", "-", f"::{name}"]
        subprocess.run(command, input=text.encode(), check=True)
