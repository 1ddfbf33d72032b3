"""The page: it may run its own script and nothing else, and needs nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator

import httpx
import pytest

from tests.fixtures import patience
from tests.server.scripted import ScriptedModel
from tests.server.serving import serving


@pytest.fixture(scope="module")
def page() -> Iterator[httpx.Response]:
    with serving(ScriptedModel()) as served:
        yield patience.get(served.url)


def test_the_policy_allows_exactly_the_page_itself(page: httpx.Response) -> None:
    assert page.status_code == 200
    rules = dict(rule.strip().split(" ", 1) for rule in page.headers["content-security-policy"].split(";"))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == rules["frame-ancestors"] == "'none'"
    assert rules["connect-src"] == "'self'"
    for element in ("script", "style"):
        (content,) = re.findall(f"<{element}>(.*?)</{element}>", page.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert rules[f"{element}-src"] == f"'sha256-{digest}'"


def test_nothing_comes_from_elsewhere(page: httpx.Response) -> None:
    assert not re.search(r"https?://|//[a-z]|@import|<(script|link|img|iframe)[^>]+(src|href)=\"(?!data:)", page.text)
    assert not re.search(r"\son[a-z]+=|\sstyle=|javascript:", page.text)  # the policy would block these
    assert "innerHTML" not in page.text
    assert len(page.content) < 8 << 10


def test_people_who_cannot_see_it_can_use_it(page: httpx.Response) -> None:
    assert '<html lang="en">' in page.text
    assert 'role="log" aria-live="polite"' in page.text
    for field in re.findall(r"<textarea id=\"(\w+)\"", page.text):
        assert f'<label for="{field}">' in page.text
