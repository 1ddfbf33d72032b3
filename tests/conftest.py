"""Fixtures live in `tests/fixtures`, one module per room."""

pytest_plugins = [
    "tests.fixtures.sources",
    "tests.fixtures.models",
    "tests.fixtures.hub_server",
    "tests.fixtures.images",
    "tests.fixtures.bundles",
]
