"""The overlay's shell scripts, run on this machine: folders and programs that they name are a test's own."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.fixtures.patience import PATIENCE

SCRIPTS = Path(__file__).parents[2] / "images/overlay/usr/libexec/edgeai"
_FOLDERS = re.compile(r"(?<![\w.])/(sys|run|data|usr/libexec)/")


@dataclass(frozen=True)
class Machine:
    """A folder in the place of `/`."""

    root: Path

    def path(self, name: str) -> Path:
        """A file of the machine, in a folder that is there."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def program(self, name: str, script: str) -> None:
        """A program that stands for the real one; `$root` is the machine's folder."""
        self._executable(self.path(f"bin/{name}"), f"#!/bin/sh\nroot={self.root}\n{script}\n")

    def run(self, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a script of the overlay, which finds its companions beside it."""
        for source in SCRIPTS.iterdir():
            text = _FOLDERS.sub(lambda found: f"{self.root}/{found[1]}/", source.read_text())
            self._executable(self.path(f"usr/libexec/edgeai/{source.name}"), text)
        return subprocess.run(
            [self.path(f"usr/libexec/edgeai/{script}"), *arguments],
            env=os.environ | {"PATH": f"{self.root}/bin:{os.environ['PATH']}"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def _executable(self, path: Path, text: str) -> None:
        path.write_text(text)
        path.chmod(0o755)
