"""All of Ollama's API."""

from __future__ import annotations

from collections.abc import Iterator

from fastapi import APIRouter

from edgeai.config import home_dir
from edgeai.package.aliases import AliasFile
from edgeai.server.metrics import Metrics
from edgeai.server.model_pool import ModelPool
from edgeai.server.ollama import chat, embed, generate, manage, models


def routers(pool: ModelPool, metrics: Metrics) -> Iterator[APIRouter]:
    """The groups of routes over the models of `pool`."""
    yield chat.router(pool, metrics)
    yield generate.router(pool, metrics)
    yield embed.router(pool)
    yield models.router(pool)
    yield manage.router(pool, AliasFile(home_dir()))
