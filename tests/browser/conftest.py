"""A headless Chromium and the real server with the real model behind it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from edgeai.model import AsyncModel, default_settings
from edgeai.package.package import Package
from tests.browser.chromium import PATIENCE, chromium
from tests.server.serving import Served, serving


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests of this folder need Chromium, which only `./scripts/test --browser` sets up."""
    for item in items:
        if item.path.is_relative_to(__file__.rpartition("/")[0]):
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def served(smollm_package: Package) -> Iterator[Served]:
    settings = default_settings(smollm_package.manifest, max_rows=4, max_context=2048, kv_budget_bytes=1 << 28)
    with serving(AsyncModel.load(smollm_package, settings)) as server:
        yield server


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture
def page(browser: Any, served: Served) -> Iterator[Any]:
    """The page in a new profile; it must ask nobody but the board, and must not raise anything."""
    with browser.new_context(locale="en-GB", viewport={"width": 1100, "height": 760}) as context:
        opened = context.new_page()
        opened.set_default_timeout(PATIENCE)
        troubles: list[str] = []
        opened.on("pageerror", lambda error: troubles.append(str(error)))
        opened.on("request", lambda request: request.url.startswith(served.url) or troubles.append(request.url))
        opened.goto(served.url)
        opened.wait_for_selector("#model option", state="attached")
        yield opened
        assert troubles == []
