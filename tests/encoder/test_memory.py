"""What an encoder's buffers take, beside what the pool expects of them before it is loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgeai.encoder.batches import Limits, longest
from edgeai.memory_plan import encoder_scratch
from tests.fixtures import encoders
from tests.fixtures.patience import PATIENCE

MIB = 1 << 20
# Bytes that the largest run of the package in argv takes, beyond what the loaded encoder has.
RUN = """
import re, sys
from pathlib import Path
import psutil
from edgeai.encoder.batches import Limits
from edgeai.encoder.encoder import Encoder
from edgeai.encoder.tokens import Tokens
from edgeai.package.package import Package

encoder = Encoder(Package.open(Path(sys.argv[1])), threads=1)
loaded = psutil.Process().memory_info().rss
length = encoder.max_length
encoder.run([Tokens((5,) * length, (0,) * length)] * Limits().rows(length))
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
print(int(peak[1]) * 1024 - loaded)
"""


@pytest.mark.parametrize(("width", "inner", "length"), [(384, 1536, 512), (64, 128, 2048)])
def test_the_estimate_covers_what_runs_take(
    width: int, inner: int, length: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wide models need it for activations, long texts for attention scores."""
    for name, value in {"WIDTH": width, "INNER": inner, "POSITIONS": length}.items():
        monkeypatch.setattr(encoders, name, value)
    package = encoders.encoder_package(tmp_path, max_length=length, exact=True)
    command = [sys.executable, "-c", RUN, package.path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    measured, expected = int(done.stdout), encoder_scratch(package.manifest)
    assert measured < expected + 12 * MIB  # huge pages round up
    assert expected < 2 * measured


def test_scores_count_with_the_square_of_what_runs_together(tmp_path: Path) -> None:
    manifest = encoders.encoder_package(tmp_path, max_length=4096).manifest
    assert longest(manifest) == 4096
    width = manifest.architecture.hidden_size
    assert encoder_scratch(manifest) == 4096 * width * 64 + 8 * 4096**2
    many = Limits(tokens=8192)
    assert encoder_scratch(manifest, many) == 8192 * width * 64 + 8 * 4096 * 8192
