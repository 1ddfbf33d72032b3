"""The card of boot_image, asked as QEMU asks it: what was flushed is there after a cut, and the rest by chance."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SECTORS, SECTOR = 64, 512
READ, WRITE, FLUSH, TRIM = 0, 1, 3, 4


@pytest.fixture(autouse=True)
def _scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "scripts"))


class Client:
    """Of NBD, as QEMU is one."""

    def __init__(self, address: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(address))
        self.file = self.socket.makefile("rb")
        assert self.file.read(18) == b"NBDMAGICIHAVEOPT" + bytes([0, 3])
        self.socket.sendall(struct.pack(">I", 3))
        self.option(8, b"")
        assert self.answers(8) == [(0x80000001, b"")]  # no structured replies here
        self.option(7, struct.pack(">IH", 0, 0))
        (kind, export), *_, last = self.answers(7)
        assert (kind, last) == (3, (1, b""))
        _, self.size, self.flags = struct.unpack(">HQH", export)

    def option(self, number: int, data: bytes) -> None:
        self.socket.sendall(b"IHAVEOPT" + struct.pack(">II", number, len(data)) + data)

    def answers(self, number: int) -> list[tuple[int, bytes]]:
        found = []
        while not found or found[-1][0] not in (1, 0x80000001):
            magic, option, kind, length = struct.unpack(">QIII", self.file.read(20))
            assert (magic, option) == (0x3E889045565A9, number)
            found.append((kind, self.file.read(length)))
        return found

    def ask(self, kind: int, at: int = 0, count: int = 0, data: bytes = b"") -> tuple[int, bytes]:
        """The error and what was read."""
        handle = random.Random(at).getrandbits(64)
        self.socket.sendall(struct.pack(">IHHQQI", 0x25609513, 0, kind, handle, at, count or len(data)) + data)
        magic, error, answered = struct.unpack(">IIQ", self.file.read(16))
        assert (magic, answered) == (0x67446698, handle)
        return error, self.file.read(count) if kind == READ and not error else b""

    def write(self, sector: int, data: bytes) -> None:
        assert self.ask(WRITE, sector * SECTOR, data=data) == (0, b"")

    def close(self) -> None:
        self.file.close()
        self.socket.close()


@contextmanager
def using(folder: Path, seed: int) -> Iterator[tuple[Client, Path]]:
    """A client of a card that is empty; the power is cut at the end."""
    from boot_card import Card

    disk = folder / "disk.img"
    disk.write_bytes(bytes(SECTORS * SECTOR))
    card = Card(disk, folder / "card", random.Random(seed))
    client = Client(folder / "card")
    yield client, disk
    client.close()
    card.cut()


def test_what_was_written_is_read(tmp_path: Path) -> None:
    with using(tmp_path, 1) as (client, _):
        assert (client.size, client.flags) == (SECTORS * SECTOR, 5)
        client.write(3, b"x" * 2 * SECTOR)
        assert client.ask(READ, 4 * SECTOR, 2 * SECTOR) == (0, b"x" * SECTOR + bytes(SECTOR))
        assert client.ask(READ, SECTORS * SECTOR, SECTOR) == (22, b"")
        assert client.ask(TRIM, 0, SECTOR) == (22, b"")
        assert client.ask(WRITE, SECTORS * SECTOR, data=b"x" * SECTOR) == (22, b"")
        assert client.ask(READ, 0, SECTOR) == (0, bytes(SECTOR))  # the conversation goes on


def test_what_was_flushed_is_there_and_the_rest_by_chance(tmp_path: Path) -> None:
    seen = set()
    for seed in range(60):
        with using(tmp_path, seed) as (client, disk):
            client.write(0, b"a" * 4 * SECTOR)
            assert client.ask(FLUSH) == (0, b"")
            client.write(0, b"b" * 4 * SECTOR)
            client.write(2, b"c" * SECTOR)
            assert client.ask(READ, 0, 4 * SECTOR)[1][::SECTOR] == b"bbcb"
        content = disk.read_bytes()
        assert set(content[4 * SECTOR :]) == {0}
        assert all(len(set(content[at : at + SECTOR])) == 1 for at in range(0, len(content), SECTOR))
        seen.add(content[: 4 * SECTOR : SECTOR].decode())
    assert {"aaaa", "bbcb", "bbbb", "aaca"} <= seen  # none, both, and each without the other
    assert seen & {"baaa", "bbaa", "bbba", "bbca", "baca"}  # torn
    assert not any(set("bc") >= set(one[3]) and one[0] == "a" for one in seen)  # never from the middle


def test_a_machine_may_die_in_the_middle_of_a_write(tmp_path: Path) -> None:
    from boot_card import Card

    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(SECTORS * SECTOR))
    card = Card(disk, tmp_path / "card", random.Random(1))
    client = Client(tmp_path / "card")
    for sector in range(SECTORS):
        client.socket.sendall(struct.pack(">IHHQQI", 0x25609513, 0, WRITE, 0, sector * SECTOR, SECTOR) + b"x" * SECTOR)
    client.socket.sendall(struct.pack(">IHHQQI", 0x25609513, 0, WRITE, 0, 0, SECTOR) + b"half")
    client.close()
    assert 0 < card.cut() <= SECTORS
    content = disk.read_bytes()
    assert {content[at : at + SECTOR] for at in range(0, len(content), SECTOR)} <= {bytes(SECTOR), b"x" * SECTOR}


def test_it_may_stop_answering(tmp_path: Path) -> None:
    from boot_card import Card

    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(SECTORS * SECTOR))
    card = Card(disk, tmp_path / "card", random.Random(1))
    client = Client(tmp_path / "card")
    card.answers.clear()
    client.socket.sendall(struct.pack(">IHHQQI", 0x25609513, 0, READ, 7, 0, SECTOR))
    client.socket.settimeout(0.3)
    with pytest.raises(TimeoutError):
        client.socket.recv(1)
    client.socket.settimeout(None)
    card.answers.set()
    assert client.file.read(16 + SECTOR) == struct.pack(">IIQ", 0x67446698, 0, 7) + bytes(SECTOR)
    card.answers.clear()
    client.socket.sendall(struct.pack(">IHHQQI", 0x25609513, 0, READ, 8, 0, SECTOR))
    client.close()
    assert card.cut() == 0  # nor does that keep its power from being cut
