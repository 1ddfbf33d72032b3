"""Health: what is asked, for how long, and what follows."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from edgeai.appliance import health
from tests.appliance.boot_folders import make_boot, running


def test_checks_are_tried_again_until_all_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "BETWEEN_SECONDS", 0)
    answers = iter([False, True, True])

    def refusing() -> bool:
        if not next(answers):
            raise ConnectionRefusedError
        return True

    assert health.healthy(60, (refusing, lambda: True))
    assert not health.healthy(0, (lambda: True,))


@pytest.mark.parametrize(("slot", "well", "good", "commands"), [
    ("a", False, "a", []),
    ("b", True, "b", []),
    ("b", False, "a", [["systemctl", "reboot"]]),
])  # fmt: skip
def test_a_trial_is_committed_or_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slot: str, well: bool, good: str, commands: list[list[str]]
) -> None:
    boot = make_boot(tmp_path / "boot", "grub")
    running(boot, "a").try_once("b")
    slots = running(boot, "b" if slot == "b" else "a")
    seen: list[list[str]] = []
    monkeypatch.setattr(health, "open_slots", lambda: slots)
    monkeypatch.setattr(health, "healthy", lambda seconds: well)
    monkeypatch.setattr(health, "home_dir", lambda: tmp_path / "not-mounted")
    monkeypatch.setattr(health.subprocess, "run", lambda command, check: seen.append(command))
    monkeypatch.setattr(health, "writable", contextlib.nullcontext)
    health.main()
    assert (slots.status().good, seen) == (good, commands)
    if commands:
        assert running(boot, "a").status().failed == "b"


def test_what_a_sound_server_may_say() -> None:
    def said(text: str) -> dict[str, object]:
        return {"choices": [{"message": {"content": text}}]}

    assert health.sound(200, said("4"))
    assert not health.sound(200, said(" "))
    assert health.sound(404, {"error": "no model for chats"})
    assert not health.sound(500, None)


def test_a_board_without_models_has_nothing_to_serve(tmp_path: Path) -> None:
    assert not health.nothing_to_serve(tmp_path / "not-mounted")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / ".lock").touch()
    assert health.nothing_to_serve(tmp_path)
    (tmp_path / "models" / "tiny").mkdir()
    assert not health.nothing_to_serve(tmp_path)
