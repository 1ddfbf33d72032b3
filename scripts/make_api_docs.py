"""The tables of the pages about the API from the application's own description of it: see scripts/make_api_docs."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from edgeai.server.app import create_app
from edgeai.server.batch.runner import WorkFolder
from edgeai.server.model_pool import ModelPool
from edgeai.server.openapi.tables import with_tables
from edgeai.server.pool.catalog import Catalog
from edgeai.server.pool.names import Names

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = [DOCS / name for name in ("api.md", "embeddings.md", "ollama.md")]


def description() -> dict[str, Any]:
    """What a server with everything switched on says at /openapi.json. No model is needed for that."""
    models = ModelPool(Names(Catalog(dict, list)), residents=None)  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as folder:
        return create_app(models, work=WorkFolder(Path(folder), 1)).openapi()


def main() -> None:
    """Write the pages, or with --check only look."""
    described = description()
    for page in PAGES:
        before = page.read_text(encoding="utf-8")
        after = with_tables(before, described)
        if sys.argv[1:] == ["--check"]:
            if after != before:
                sys.exit(f"{page} is stale: ./scripts/make_api_docs")
        else:
            page.write_text(after, encoding="utf-8")


if __name__ == "__main__":
    main()
