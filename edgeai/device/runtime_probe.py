"""Whether onnxruntime loads here: in a process of its own, for a wheel made for a newer CPU dies when imported."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TypedDict

PROBE = "from edgeai.onnx_session import runtime_version; print(runtime_version())"


class Probe(TypedDict):
    """What was seen: the version, or why it does not load."""

    works: bool
    says: str


def probe_runtime() -> Probe:
    """Load onnxruntime in a child process and say whether that works on this CPU."""
    result = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=False)
    if result.returncode == 0:
        return {"works": True, "says": result.stdout.strip()}
    if result.returncode < 0:
        name = signal.Signals(-result.returncode).name
        return {"works": False, "says": f"loading it died of {name}: this wheel is not made for this CPU"}
    return {"works": False, "says": (result.stderr.strip().splitlines() or ["it does not load"])[-1]}
