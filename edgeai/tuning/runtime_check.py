"""Before a server loads onnxruntime: whether that was seen to work here, and else a try in a child process.

Nothing here may import onnxruntime, not even through others: it would die before it could say why.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from edgeai.device.runtime_probe import probe_runtime
from edgeai.errors import OutOfDisk, TrialFailed
from edgeai.package import durable
from edgeai.tuning.cpu_key import PROFILES_FOLDER, read_cpu_key


def ensure_runtime(home: Path) -> None:
    """Return if onnxruntime loads on this processor. Raises `TrialFailed` that says what was seen."""
    key = read_cpu_key().slug
    path = home / PROFILES_FOLDER / "runtime"
    with contextlib.suppress(OSError, ValueError):
        if path.read_text().strip() == key:
            return
    probe = probe_runtime()
    if not probe["works"]:
        raise TrialFailed(
            f"onnxruntime does not work on this machine: {probe['says']}",
            "install a version that does, such as the one before: pip install 'onnxruntime<VERSION'",
        )
    with contextlib.suppress(OSError, OutOfDisk):  # without a disk it is tried at every start
        path.parent.mkdir(parents=True, exist_ok=True)
        durable.write_file(path, f"{key}\n".encode())
