"""Pictures of the page for the guides: chat, status, set-up, and a phone that speaks Arabic."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from edgeai.model import AsyncModel, default_settings
from edgeai.package.package import Package
from tests.browser.chromium import ask, chromium, until
from tests.server.serving import serving

QUESTIONS = ("What is gravity? Answer in two sentences.", "Give three facts about it as a list.")


def main(package: Path, folder: Path) -> None:
    """Write the pictures into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    opened = Package.open(package)
    model = AsyncModel.load(opened, default_settings(opened.manifest, max_rows=4, max_context=2048))
    with serving(model) as served, chromium() as browser:
        with browser.new_context(viewport={"width": 1000, "height": 700}, locale="en-GB") as context:
            desktop(context.new_page(), served.url, folder)
        size = {"width": 360, "height": 640}
        with browser.new_context(viewport=size, is_mobile=True, locale="ar", color_scheme="dark") as context:
            phone(context.new_page(), served.url, folder)


def desktop(page: Any, url: str, folder: Path) -> None:
    """All three views."""
    page.goto(url)
    page.wait_for_selector("#model option", state="attached")
    for question in QUESTIONS:
        ask(page, question)
    page.screenshot(path=folder / "chat.png")
    page.click('nav a[href="#status"]')
    until(page, "document.querySelector('.card polyline').getAttribute('points')?.split(' ').length > 4")
    page.screenshot(path=folder / "status.png")
    page.click('nav a[href="#setup"]')
    page.wait_for_selector(".fields label:last-of-type option", state="attached")
    page.screenshot(path=folder / "setup.png")


def phone(page: Any, url: str, folder: Path) -> None:
    """Right to left, in the dark."""
    page.goto(url)
    page.wait_for_selector("#model option", state="attached")
    ask(page, "Translate to Arabic: good morning")
    page.screenshot(path=folder / "phone.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
