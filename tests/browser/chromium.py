"""Debian's Chromium, driven by Playwright, without anything that it does of its own accord on a network."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

PATIENCE = 120_000  # milliseconds; a busy machine with one core answers slowly
QUIET = ("--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-component-update")


def executable() -> str:
    """Where Chromium is; EDGEAI_CHROMIUM names one. Raises RuntimeError where there is none."""
    names = (os.environ.get("EDGEAI_CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        raise RuntimeError("these tests need Chromium: ./scripts/test --browser installs it, or says how")
    return found


@contextmanager
def chromium() -> Iterator[Any]:
    """A running browser."""
    from playwright.sync_api import sync_playwright

    sandbox = () if os.getuid() else ("--no-sandbox",)  # Chromium refuses root otherwise
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable(), args=[*QUIET, *sandbox])
        try:
            yield browser
        finally:
            browser.close()


def until(page: Any, script: str) -> None:
    """Wait until `script` is true. Playwright's own wait evaluates strings in the page, which its policy forbids."""
    for _ in range(PATIENCE // 100):
        if page.evaluate(script):
            return
        page.wait_for_timeout(100)
    raise TimeoutError(script)


def ask(page: Any, text: str) -> str:
    """Send `text` as a person does, and read the whole answer."""
    page.fill("#text", text)
    page.keyboard.press("Enter")
    return answer(page)


def answer(page: Any) -> str:
    """The last answer, once it is complete."""
    page.wait_for_selector('.log[aria-busy="false"]')
    text: str = page.locator(".turn.assistant .body").last.inner_text()
    return text
