"""Which operations want an API key, and for what, is what the description of the API says of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from edgeai.config import ServerSettings
from edgeai.keys.key import SCOPES
from edgeai.keys.store import KeyStore
from edgeai.server.app import create_app
from edgeai.server.batch.runner import WorkFolder
from tests.fixtures.patience import PATIENCE
from tests.server.guarded import guard_of
from tests.server.pools import pool_over
from tests.server.serving import Served, serving

Operation = tuple[str, str, dict[str, Any]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def secrets(home: Path) -> dict[str, str]:
    """A key for each scope alone."""
    return {scope: KeyStore(home).add(scope, scopes=(scope,))[1] for scope in SCOPES}


@pytest.fixture(scope="module")
def served(home: Path, secrets: dict[str, str]) -> Iterator[Served]:
    guard = guard_of(ServerSettings(), home)
    with serving(None, app=create_app(pool_over({}), guard=guard, work=WorkFolder(home / "work", 1))) as server:
        yield server


@pytest.fixture(scope="module")
def operations(client: httpx.Client, secrets: dict[str, str]) -> list[Operation]:
    document = client.get("/openapi.json", headers={"x-api-key": secrets["models"]}).json()
    assert document["components"]["securitySchemes"].keys() == {"bearer", "x-api-key"}
    return [
        (method, path, operation)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    ]


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, timeout=PATIENCE) as made:
        yield made


def status(client: httpx.Client, method: str, path: str, key: dict[str, str]) -> int:
    """Of a request without a body, at which no operation does anything."""
    return client.request(method, path.replace("{", "").replace("}", ""), headers=key).status_code


def test_what_is_open_says_so_and_the_rest_is_refused_without_a_key(
    client: httpx.Client, operations: list[Operation]
) -> None:
    for method, path, operation in operations:
        wanted = status(client, method, path, {}) == 401
        assert bool(operation["security"]) is wanted, (method, path)
        assert {} not in operation["security"]


def test_a_key_needs_the_scope_that_an_operation_names(
    client: httpx.Client, operations: list[Operation], secrets: dict[str, str]
) -> None:
    for method, path, operation in operations:
        for way in operation["security"]:
            ((scheme, (scope,)),) = way.items()
            for other, secret in secrets.items():
                key = {"authorization": f"Bearer {secret}"} if scheme == "bearer" else {"x-api-key": secret}
                forbidden = status(client, method, path, key) == 403
                assert forbidden is (other not in (scope, "admin")), (method, path, other)


def test_a_server_without_keys_says_that_they_may_be_left_out() -> None:
    document = create_app(pool_over({})).openapi()
    assert document["paths"]["/v1/models"]["get"]["security"] == [{}, {"bearer": ["models"]}, {"x-api-key": ["models"]}]
    assert document["paths"]["/health"]["get"]["security"] == []
