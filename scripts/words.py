"""Texts without sense, for prompts that no one has asked before."""

from __future__ import annotations

import random

WORDS = ("water", "pump", "valve", "field", "road", "market", "school", "river", "house", "tree", "stone", "winter")


def some_words(chance: random.Random, count: int) -> str:
    """So many words, of one token each in most vocabularies."""
    return " ".join(chance.choices(WORDS, k=count))
