"""Names as Ollama's clients send them: with a tag, which is `latest` where nothing was said."""

from __future__ import annotations

from edgeai.server.model_pool import ModelPool

LATEST = ":latest"


def known(models: ModelPool, name: str) -> str:
    """The name without `:latest`, unless something is really called so."""
    if not name.endswith(LATEST) or name in models.names.all():
        return name
    return name.removesuffix(LATEST)
