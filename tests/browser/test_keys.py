"""The first visit to a board that wants a key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeai.keys.store import KeyStore
from tests.browser.chromium import PATIENCE, ask, until
from tests.server.guarded import guarded
from tests.server.scripted import Script, ScriptedModel


@pytest.fixture
def locked(browser: Any, tmp_path: Path) -> Iterator[tuple[Any, str]]:
    """A page of a board on a network, and the key to it."""
    _, secret = KeyStore(tmp_path).add("phone")
    with (
        guarded(tmp_path, model=ScriptedModel(Script(text="Yes."))) as served,
        browser.new_context(locale="en-GB") as context,
    ):
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(served.url)
        yield page, secret


def test_a_visitor_is_asked_for_the_key(locked: tuple[Any, str]) -> None:
    page, secret = locked
    page.get_by_text("This board wants a key").wait_for()
    page.fill("input[type=password]", "sk-wrong")
    page.get_by_role("button", name="Save").click()
    page.get_by_text("This board wants a key").wait_for()
    page.fill("input[type=password]", secret)
    page.get_by_role("button", name="Save").click()
    page.wait_for_selector("#text")
    until(page, "document.querySelectorAll('#model option').length === 1")
    assert ask(page, "Is it open?") == "Yes."


def test_the_key_is_kept_for_the_next_visit(locked: tuple[Any, str]) -> None:
    page, secret = locked
    page.fill("input[type=password]", secret)
    page.get_by_role("button", name="Save").click()
    page.wait_for_selector("#model option", state="attached")
    page.reload()
    page.wait_for_selector("#model option", state="attached")
    assert ask(page, "Still?") == "Yes."


def test_a_key_that_was_revoked_is_asked_for_again(locked: tuple[Any, str]) -> None:
    page, _ = locked
    page.evaluate("localStorage.setItem('edgeai.key', 'sk-edgeai-gone')")
    page.goto(page.url.partition("#")[0] + "#chat")
    page.reload()
    page.get_by_text("This board wants a key").wait_for()
