"""Three models under a limit that the kernel enforces and that does not hold them: all answer, none is killed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edgeai.package.package import Package
from tests.fixtures.sources import REPOSITORY


@pytest.mark.slow
def test_models_take_turns_where_they_do_not_fit_together(smollm_package: Package, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    options = ["--limits", "384", "--rounds", "2", "--json", str(report)]
    command = [sys.executable, "scripts/check_models_limit.py", str(smollm_package.path), *options]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    (outcome,) = json.loads(report.read_text())
    assert (outcome["answers"], outcome["missing"], outcome["kills"]) == (6, 0, 0)
    if outcome["way"] == "rlimit":
        pytest.skip("no control group can be made here, and without one nothing is scarce")
    assert outcome["evictions"] >= 3
    assert outcome["peak"] is None or outcome["peak"] <= 384 << 20
