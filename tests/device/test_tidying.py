"""Memory is tidied once, by a thread that ends."""

from __future__ import annotations

import logging

import pytest

from edgeai.device import tidying
from edgeai.device.tidying import tidy, tidy_in_background
from tests.fixtures.patience import PATIENCE


@pytest.mark.parametrize("huge", [True, False])
def test_huge_pages_only_where_they_are_wanted(huge: bool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "edgeai")
    thread = tidy_in_background(huge_pages=huge, delay=0)
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert "of files are left to the page cache" in caplog.text
    assert ("in huge pages" in caplog.text) == huge


def test_a_system_that_does_not_tell_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def untold() -> int:
        raise FileNotFoundError("/proc/self/smaps")

    caplog.set_level(logging.INFO, "edgeai")
    monkeypatch.setattr(tidying, "release_file_pages", untold)
    tidy(huge_pages=True)
    assert "memory stays as it is: /proc/self/smaps" in caplog.text
