"""Fixtures live in `tests/fixtures`, one module per room."""

from hypothesis import HealthCheck, settings

pytest_plugins = [
    "tests.fixtures.sources",
    "tests.fixtures.models",
    "tests.fixtures.hub_server",
    "tests.fixtures.images",
    "tests.fixtures.bundles",
]

# How long an example takes says how busy the machine is.
settings.register_profile("edgeai", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("edgeai")
