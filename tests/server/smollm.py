"""The real model behind the real server, and the real client that asks it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import openai

from edgeai.model import AsyncModel, default_settings
from edgeai.package.package import Package
from tests.server.clients import strict_client
from tests.server.serving import Served, serving


@contextmanager
def serving_smollm(package: Package) -> Iterator[Served]:
    """SmolLM2 with eight rows."""
    settings = default_settings(package.manifest, max_rows=8, max_context=2048, kv_budget_bytes=1 << 30)
    with serving(AsyncModel.load(package, settings)) as server:
        yield server


@contextmanager
def client_of(served: Served) -> Iterator[openai.OpenAI]:
    """OpenAI's client, which tries nothing twice: a failure is seen."""
    with strict_client(served.url) as made:
        yield made
