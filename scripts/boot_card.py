"""A card with a write cache that forgets: what it was not told to flush may be lost when the power is cut.

QEMU writes to it over NBD (https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md), of which this has the
newstyle handshake and simple replies alone. Reads see every write. At a cut each write since the last flush is there,
lost, or there up to some sector, whatever became of those before and after it: cards write in an order of their own.
"""

from __future__ import annotations

import os
import random
import socketserver
import struct
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, ClassVar

SECTOR = 512
_MOST_BYTES = 32 << 20  # of one request
_GREETING = struct.Struct(">8s8sH")
_OPTION, _ANSWER = struct.Struct(">8sII"), struct.Struct(">QIII")
_EXPORT, _SIZES = struct.Struct(">HQH"), struct.Struct(">HIII")
_REQUEST, _REPLY = struct.Struct(">IHHQQI"), struct.Struct(">IIQ")
_MAGIC, _REQUEST_MAGIC, _ANSWER_MAGIC, _REPLY_MAGIC = b"IHAVEOPT", 0x25609513, 0x3E889045565A9, 0x67446698
_FIXED_NEWSTYLE, _NO_ZEROES = 1, 2
_ABORT, _GO = 2, 7  # of the client's options
_ACKNOWLEDGED, _INFORMATION, _UNSUPPORTED = 1, 3, 0x80000001
_HAS_FLAGS, _SEND_FLUSH = 1, 4
_READ, _WRITE, _DISCONNECT, _FLUSH = 0, 1, 2, 3
_INVALID = 22  # EINVAL


@dataclass(frozen=True)
class _Written:
    """A write that is not safe yet."""

    at: int
    before: bytes
    after: bytes


@dataclass
class Card:
    """The content of `disk`, served to one QEMU on `address` until the power is cut."""

    disk: Path
    address: Path  # of a socket in the file system
    chance: random.Random
    file: BinaryIO = field(init=False)
    answers: threading.Event = field(default_factory=threading.Event)  # cleared, it takes requests and never answers
    _unsafe: list[_Written] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.answers.set()
        self.file = self.disk.open("r+b", buffering=0)
        self.address.unlink(missing_ok=True)
        self._server = _Server(str(self.address), _Conversation)
        self._server.card = self
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    @property
    def size(self) -> int:
        """Bytes."""
        return self.disk.stat().st_size

    def read(self, at: int, count: int) -> bytes:
        """What is there, be it safe or not."""
        return os.pread(self.file.fileno(), count, at)

    def write(self, at: int, data: bytes) -> None:
        """Take it, without any promise."""
        self._unsafe.append(_Written(at, self.read(at, len(data)), data))
        self._put(at, data)

    def flush(self) -> None:
        """Everything that was written is safe."""
        self._unsafe.clear()

    def cut(self) -> int:
        """Cut its power after QEMU's, and forget; how many writes were not safe."""
        self.answers.set()
        self._server.shutdown()  # once all that QEMU had sent is taken
        self._server.server_close()
        self._thread.join()
        for one in reversed(self._unsafe):
            self._put(one.at, one.before)
        survive = self.chance.random()
        for one in self._unsafe:
            if self.chance.random() < survive:
                self._put(one.at, one.after)
            elif self.chance.random() < survive:
                self._put(one.at, one.after[: self.chance.randrange(0, len(one.after), SECTOR)])
        self.file.close()
        return len(self._unsafe)

    def _put(self, at: int, data: bytes) -> None:
        while data:
            done = os.pwrite(self.file.fileno(), data, at)
            at, data = at + done, data[done:]


class _Server(socketserver.UnixStreamServer):
    card: Card


class _Conversation(socketserver.StreamRequestHandler):
    """One client: options, then requests, each answered before the next is read."""

    server: _Server
    wbufsize: ClassVar[int] = 1 << 16

    def handle(self) -> None:
        try:
            if self._agree():
                while self._serve():
                    self.wfile.flush()
        except (ConnectionError, EOFError):  # QEMU was killed
            return

    def finish(self) -> None:
        try:
            super().finish()
        except ConnectionError:
            return

    def _exactly(self, count: int) -> bytes:
        data = self.rfile.read(count)
        if len(data) < count:
            raise EOFError
        return data

    def _agree(self) -> bool:
        """The handshake; whether requests follow."""
        self.wfile.write(_GREETING.pack(b"NBDMAGIC", _MAGIC, _FIXED_NEWSTYLE | _NO_ZEROES))
        self.wfile.flush()
        self._exactly(4)  # the client's flags
        while True:
            magic, option, length = _OPTION.unpack(self._exactly(_OPTION.size))
            if magic != _MAGIC or length > _MOST_BYTES:
                return False
            self._exactly(length)
            if option == _GO:
                export = _EXPORT.pack(0, self.server.card.size, _HAS_FLAGS | _SEND_FLUSH)
                self._answer(option, _INFORMATION, export)
                self._answer(option, _INFORMATION, _SIZES.pack(3, SECTOR, 4096, _MOST_BYTES))
            self._answer(option, _ACKNOWLEDGED if option in (_GO, _ABORT) else _UNSUPPORTED)
            self.wfile.flush()
            if option in (_GO, _ABORT):
                return bool(option == _GO)

    def _answer(self, option: int, kind: int, data: bytes = b"") -> None:
        self.wfile.write(_ANSWER.pack(_ANSWER_MAGIC, option, kind, len(data)) + data)

    def _serve(self) -> bool:
        """One request; whether another may follow."""
        card = self.server.card
        magic, _, kind, handle, at, count = _REQUEST.unpack(self._exactly(_REQUEST.size))
        if magic != _REQUEST_MAGIC or kind == _DISCONNECT or count > _MOST_BYTES:
            return False
        card.answers.wait()
        answer, error = b"", 0
        if kind == _WRITE:
            data = self._exactly(count)
        if kind in (_READ, _WRITE) and at + count > card.size:
            error = _INVALID
        elif kind == _READ:
            answer = card.read(at, count)
        elif kind == _WRITE:
            card.write(at, data)
        elif kind == _FLUSH:
            card.flush()
        else:
            error = _INVALID
        self.wfile.write(_REPLY.pack(_REPLY_MAGIC, error, handle) + answer)
        return True
