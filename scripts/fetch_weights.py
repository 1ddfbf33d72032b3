"""Prints the path of the GGUF file that a recipe is built from, fetched when it is not in the cache.

fetch_weights.py RECIPE
"""

from __future__ import annotations

import sys

from edgeai.config import cache_dir
from edgeai.recipe import find_recipe
from edgeai.sources.gguf import GGUFSource
from edgeai.sources.open import open_first


def main() -> None:
    source = open_first(find_recipe(sys.argv[1]).sources, cache_dir())
    if not isinstance(source, GGUFSource):
        raise SystemExit(f"the recipe {sys.argv[1]} was opened from something else than a GGUF file")
    print(source.path)


if __name__ == "__main__":
    main()
