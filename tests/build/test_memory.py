"""Memory of a build stays far below the float model, which is never held as a whole."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgeai.package.package import Package
from tests.build import convert_and_measure

MIB = 1 << 20
CONVERSION = 250 * MIB  # measured: 134 MiB, of which 40 are the interpreter with its libraries
WHOLE = 450 * MIB  # measured: 340 MiB, onnxruntime's copy of the weights and the reference's logits among them


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux' account of memory")
def test_the_float_model_is_never_in_memory(smollm_gguf: Path, smollm_package: Package, tmp_path: Path) -> None:
    script = Path(convert_and_measure.__file__)
    environment = {**os.environ, "PYTHONPATH": str(script.parents[2])}
    command = [sys.executable, str(script), str(smollm_gguf), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    before, conversion, whole = map(int, done.stdout.split())
    float_model = smollm_package.manifest.architecture.parameters * 4
    assert float_model > 500 * MIB
    assert before < conversion < CONVERSION
    assert conversion <= whole < WHOLE
