"""A power cut at a chosen moment: what was not flushed to the disk may be lost, wholly or in part."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest


class PowerCut(BaseException):
    """Nothing catches it: the machine is off."""


@dataclass
class Power:
    """Counts operations, and what each file held before it was written and not flushed."""

    left: int
    folder: Path
    cut: bool = False
    seed: int = 0
    unflushed: dict[tuple[int, int], list[tuple[str, int, bytes]]] = field(default_factory=dict)

    def spend(self) -> bool:
        """Whether this operation is the one at which the power goes."""
        self.left -= 1
        return self.left < 0

    def fail(self) -> None:
        """Undo a part of what was not flushed, newest first."""
        self.cut = True
        chance = random.Random(self.seed)
        for writes in self.unflushed.values():
            for path, at, before in reversed(writes):
                if chance.random() < 0.5 and Path(path).exists():
                    with Path(path).open("r+b") as file:
                        file.seek(at)
                        file.write(before)
        self.unflushed.clear()
        raise PowerCut


@contextlib.contextmanager
def cut_at(monkeypatch: pytest.MonkeyPatch, operation: int, folder: Path) -> Iterator[Power]:
    """Cut the power at the `operation`th write, flush or rename under `folder`."""
    power = Power(operation, folder, seed=operation)
    pwrite, fsync = os.pwrite, os.fsync

    def identity(descriptor: int) -> tuple[int, int]:
        status = os.fstat(descriptor)
        return status.st_dev, status.st_ino

    def cut_pwrite(descriptor: int, data: Any, at: int) -> int:
        path = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        before = os.pread(descriptor, len(data), at)
        power.unflushed.setdefault(identity(descriptor), []).append((path, at, before.ljust(len(data), b"\0")))
        if power.spend():
            pwrite(descriptor, bytes(data)[: len(data) // 2], at)
            power.fail()
        return pwrite(descriptor, data, at)

    def cut_fsync(descriptor: int) -> None:
        if power.spend():
            power.fail()
        fsync(descriptor)
        power.unflushed.pop(identity(descriptor), None)

    def stop_before(function: Callable[..., Any]) -> Callable[..., Any]:
        def stopped(*arguments: Any, **options: Any) -> Any:
            if power.spend():
                power.fail()
            return function(*arguments, **options)

        return stopped

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", cut_pwrite)
        patch.setattr(os, "fsync", cut_fsync)
        for owner, name in ((Path, "rename"), (Path, "unlink"), (Path, "mkdir")):
            patch.setattr(owner, name, stop_before(getattr(owner, name)))
        from edgeai.package import durable

        patch.setattr(durable, "_exchange", stop_before(durable._exchange))
        patch.setattr(durable, "write_all", stop_before(durable.write_all))
        yield power
