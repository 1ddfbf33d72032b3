"""Builds a package in a process of its own and prints its peak anonymous memory, in bytes: conversion, and all."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from edgeai.build.pipeline import build_package

SECONDS = 0.002


def anonymous_bytes() -> int:
    """Memory that only this process has: mapped files are not in it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


class Sampler(threading.Thread):
    """Looks at the process's memory every few milliseconds."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.before = anonymous_bytes()
        self.peak = 0
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(SECONDS):
            self.peak = max(self.peak, anonymous_bytes())


def main(source: str, folder: Path) -> None:
    sampler = Sampler()
    sampler.start()
    conversion = 0

    def progress(step: str, done: int = 0, total: int = 0) -> None:
        nonlocal conversion
        if step == "measure the KV cache":
            conversion = sampler.peak

    build_package(source, out=folder / "package", home=folder, cache=folder, progress=progress)
    sampler.ended.set()
    print(sampler.before, conversion, sampler.peak)  # bytes


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
