"""check_arm runs on each processor what its boards' images bring along."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeai.imaging.plan import make_plan
from tests.fixtures.images import IMAGES

BOARDS = {"pi3": "cortex-a53", "zero2w": "cortex-a53", "pi4": "cortex-a72", "pi5": "cortex-a76"}


@pytest.mark.parametrize("board", BOARDS)
def test_packages_are_those_of_the_images(board: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "scripts"))
    from check_arm import SHIPPED

    assert SHIPPED[BOARDS[board]] == make_plan(IMAGES, board).board.model_target
