"""Languages, phones, keyboards, screen readers, and a board that is away."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeai.server.web.pages import assets
from tests.browser.chromium import PATIENCE, ask, until
from tests.server.serving import Served

LANGUAGES = ("en", "fr", "sw", "pt", "es", "ar", "hi", "id", "zh")
VIEWS = ("#chat", "#status", "#setup")


def messages(tag: str) -> dict[str, str]:
    found: dict[str, str] = json.loads(assets()[f"messages/{tag}.json"].content)
    return found


@pytest.fixture
def phone(browser: Any, served: Served) -> Iterator[Any]:
    """A small, cheap phone."""
    size = {"width": 360, "height": 640}
    with browser.new_context(viewport=size, has_touch=True, is_mobile=True, locale="sw-KE") as context:
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(served.url)
        page.wait_for_selector("#model option", state="attached")
        yield page


def speak(page: Any, tag: str) -> None:
    page.evaluate("tag => { localStorage.setItem('edgeai.language', tag); }", tag)
    page.reload()
    page.wait_for_selector("#text")


@pytest.mark.parametrize("tag", LANGUAGES)
def test_every_view_speaks_the_language_and_fits_a_phone(phone: Any, tag: str) -> None:
    speak(phone, tag)
    words = messages(tag)
    assert phone.evaluate("[document.documentElement.lang, document.documentElement.dir]") == [
        tag,
        "rtl" if tag == "ar" else "ltr",
    ]
    assert phone.locator("form.ask label").inner_text() == words["ask"]
    for view in VIEWS:
        phone.evaluate("hash => { location.hash = hash; }", view)
        phone.get_by_role("link", name=words[view[1:]], exact=True).and_(phone.locator("[aria-current]")).wait_for()
        assert phone.evaluate("document.documentElement.scrollWidth <= innerWidth"), view
    assert phone.get_by_role("heading", name=words["setup"]).is_visible()


def test_the_browsers_language_is_taken(phone: Any) -> None:
    assert phone.locator("nav a").first.inner_text() == messages("sw")["chat"]


def test_the_drawer_opens_on_a_phone(phone: Any) -> None:
    assert not phone.locator("aside").is_visible()
    phone.get_by_role("button", name=messages("sw")["conversations"]).tap()
    phone.get_by_role("button", name=messages("sw")["newChat"]).wait_for()
    phone.get_by_role("button", name=messages("sw")["newChat"]).tap()
    phone.locator("aside").wait_for(state="hidden")


def test_fingers_hit_the_buttons(phone: Any) -> None:
    for button in phone.locator("header button:visible, form.ask button:visible").all():
        box = button.bounding_box()
        assert min(box["width"], box["height"]) >= 44


def test_right_to_left_text_is_shown_so(page: Any) -> None:
    ask(page, "ما هي الجاذبية؟")
    assert page.locator(".turn.user .body").evaluate("element => getComputedStyle(element).direction") == "rtl"


def test_a_keyboard_is_enough(page: Any) -> None:
    ask(page, "Name one fruit.")
    assert page.evaluate("document.activeElement.id") == "text"  # ready for the next question
    page.keyboard.press("Shift+Enter")
    assert page.locator("#text").input_value() == "\n"
    page.locator(".skip").focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "model"  # the drawer's button is for phones
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    until(page, "document.activeElement.id === 'text'")


def test_everything_has_a_name(page: Any) -> None:
    """What a screen reader says of controls comes from the browser's own accessibility tree."""
    ask(page, "Name one fruit.")
    for view in VIEWS:
        page.evaluate("hash => { location.hash = hash; }", view)
        page.wait_for_timeout(200)
        tree = page.locator("body").aria_snapshot()
        unnamed = [
            line
            for line in tree.splitlines()
            if line.strip().lstrip("- ").rstrip(":") in ("button", "link", "textbox", "combobox", "log", "main button")
        ]
        assert unnamed == [], f"{view}:\n{tree}"


def test_dark_when_the_device_is(page: Any) -> None:
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.emulate_media(color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light


def test_text_has_contrast(page: Any) -> None:
    """WCAG 2.2, 1.4.3: 4.5 to 1 for text, of the colours that text and its ground have."""
    pairs = [
        ("ink", "paper"),
        ("ink", "ground"),
        ("ink", "mine"),
        ("soft", "paper"),
        ("soft", "ground"),
        ("bad", "bad-ground"),
    ]
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for text, ground in [*pairs, ("on-main", "main"), ("main", "ground")]:
            assert contrast(colour(page, text), colour(page, ground)) >= 4.5, (scheme, text, ground)


def colour(page: Any, name: str) -> list[float]:
    """Red, green and blue of a custom property, 0 to 1."""
    shown = page.evaluate(
        """name => { const box = document.createElement("i"); box.style.color = `var(--${name})`;
        document.body.append(box);
        const found = getComputedStyle(box).color; box.remove(); return found; }""",
        name,
    )
    return [int(part) / 255 for part in shown[shown.index("(") + 1 : -1].split(",")[:3]]


def contrast(one: list[float], other: list[float]) -> float:
    """WCAG's contrast ratio of two colours."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(rgb: list[float]) -> float:
    """WCAG's relative luminance."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in rgb]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_the_status_view_follows_the_board(page: Any) -> None:
    page.get_by_role("link", name="Status").click()
    page.get_by_role("heading", name="Speed").wait_for()
    page.get_by_role("row", name="Models smollm2-135m-instruct").wait_for()
    before = int(page.get_by_role("row", name="Tokens written").locator("td").inner_text().replace(",", ""))
    page.evaluate(
        """fetch("/v1/chat/completions", {method: "POST", headers: {"content-type": "application/json"},
        body: JSON.stringify({messages: [{role: "user", content: "Name one fruit."}], max_tokens: 5})})"""
    )
    until(page, f"Number(document.querySelectorAll('table td')[4].innerText.replace(/\\D/g, '')) >= {before + 1}")
    until(page, "document.querySelector('.card polyline').getAttribute('points')?.split(' ').length > 1")


def test_it_opens_while_the_board_is_away(page: Any) -> None:
    ask(page, "Name one fruit.")
    page.evaluate("navigator.serviceWorker.ready.then(() => true)")
    page.reload()  # now through the service worker, which keeps what it sees
    page.wait_for_selector("#model option", state="attached")
    page.context.set_offline(True)
    page.reload()
    page.get_by_text("The board cannot be reached").wait_for()
    page.click("aside .open")
    assert page.locator(".turn.user .body").inner_text() == "Name one fruit."
    page.context.set_offline(False)


def test_pictures_are_small(page: Any) -> None:
    """No picture of the guides weighs more than a page of text does."""
    for picture in Path(__file__).parents[2].glob("docs/images/*.png"):
        assert picture.stat().st_size < 150_000, picture.name
