"""What a start must not spend time on."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.fixtures.patience import PATIENCE

SCRIPT = """
import importlib.metadata
import edgeai

def search(**_):
    raise SystemExit(3)

importlib.metadata.distributions = search
from edgeai.package.manifest import Manifest
Manifest.model_rebuild()
"""


@pytest.mark.parametrize(("own", "code"), [({}, 0), ({"PYDANTIC_DISABLE_PLUGINS": ""}, 3)], ids=["default", "wanted"])
def test_installed_packages_are_not_searched_for_plugins(own: dict[str, str], code: int) -> None:
    """On an SD card there are hundreds of small files to read; whoever has plugins can have them."""
    environment = {name: value for name, value in os.environ.items() if name != "PYDANTIC_DISABLE_PLUGINS"} | own
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, timeout=PATIENCE, check=False)
    assert done.returncode == code
