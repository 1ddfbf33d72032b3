"""Health: what is asked, for how long, and what follows."""

from __future__ import annotations

import contextlib
import json
import subprocess
from pathlib import Path

import pytest

from edgeai.appliance import health
from edgeai.errors import InvalidInput, NotFound
from edgeai.keys.store import KeyStore
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
    monkeypatch.setattr(health, "healthy", lambda seconds, checks: well)
    monkeypatch.setattr(health, "GOOD", tmp_path / "good")
    monkeypatch.setattr(health, "home_dir", lambda: tmp_path / "not-mounted")
    monkeypatch.setattr(health.subprocess, "run", lambda command, check: seen.append(command))
    monkeypatch.setattr(health, "writable", contextlib.nullcontext)
    health.main()
    assert (slots.status().good, seen) == (good, commands)
    assert health.GOOD.exists() is not bool(commands)  # else edgeai-trial.service starts the board again
    if commands:
        assert running(boot, "a").status().failed == "b"


def test_what_a_sound_server_may_say() -> None:
    def said(text: str) -> dict[str, object]:
        return {"choices": [{"message": {"content": text}}]}

    assert health.sound(200, said("4"))
    assert not health.sound(200, said(" "))
    thought = {"choices": [{"message": {"content": None, "reasoning_content": "Two and"}}]}
    assert health.sound(200, thought)
    assert health.sound(404, {"error": "no model for chats"})
    for status in (400, 401, 403, 429, 500, 503):
        assert not health.sound(status, None)


@pytest.mark.parametrize("document", [
    None,
    [],
    {"choices": []},
    {"choices": None},
    {"choices": [{"message": None}]},
    {"choices": [{"message": {"content": None}}]},
    {"choices": [{"message": {"content": 4}}]},
])  # fmt: skip
def test_an_answer_of_another_form_is_none(document: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "BETWEEN_SECONDS", 0)
    assert not health.healthy(0.05, (lambda: health.sound(200, document),))


def test_a_key_that_a_cut_left_behind_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands that `answers` gives, on a real store."""
    store, asked = KeyStore(tmp_path), []

    def edgeai(command: list[str], check: bool, **_: object) -> subprocess.CompletedProcess[str]:
        verb, name = command[command.index("keys") + 1 :][:2]
        try:
            said = json.dumps({"key": store.add(name)[1]}) if verb == "create" else str(store.revoke(name))
        except (InvalidInput, NotFound):
            if check:
                raise subprocess.CalledProcessError(1, command) from None
            said = ""
        return subprocess.CompletedProcess(command, 0, said)

    def ask(*arguments: object) -> tuple[int, object]:
        asked.append(store.verify(str(arguments[3])))
        return 200, {"choices": [{"message": {"content": "4"}}]}

    monkeypatch.setattr(health.subprocess, "run", edgeai)
    monkeypatch.setattr(health, "_ask", ask)
    store.add(health.KEY_NAME)
    assert health.answers()
    assert [key and key.name for key in asked] == [health.KEY_NAME]
    assert not store.all()


def test_without_firewall_or_network_no_system_is_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    active = {*health.NETWORK_UNITS}
    monkeypatch.setattr(
        health.subprocess, "run", lambda command: subprocess.CompletedProcess(command, command[-1] not in active)
    )
    assert health.reachable()
    for unit in health.NETWORK_UNITS:
        active = {*health.NETWORK_UNITS} - {unit}
        assert not health.reachable()
    assert health.checks_for(tmp_path) == (health.reachable,)  # no models: nothing else to ask
    assert health.answers in health.checks_for(tmp_path / "not-mounted")


def test_a_board_without_models_has_nothing_to_serve(tmp_path: Path) -> None:
    assert not health.nothing_to_serve(tmp_path / "not-mounted")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / ".lock").touch()
    assert health.nothing_to_serve(tmp_path)
    (tmp_path / "models" / "tiny").mkdir()
    assert not health.nothing_to_serve(tmp_path)
