"""generation_config.json: the tokens that end a reply, and how the model's makers sample from it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tokenizers

from edgeai.errors import SourceError
from edgeai.sources.checkpoint_files import CONFIG, INCOMPLETE

GENERATION = "generation_config.json"
# What a number has to be to become a default of the package; anything else there is none of ours.
SAMPLING: Mapping[str, Callable[[float], bool]] = {
    "temperature": lambda value: value >= 0,
    "top_p": lambda value: 0 < value <= 1,
    "top_k": lambda value: value >= 0 and value == int(value),
    "min_p": lambda value: 0 <= value <= 1,
    "repetition_penalty": lambda value: value > 0,
}


def end_token_ids(
    generation: Mapping[str, Any], config: Mapping[str, Any], named: Sequence[str], backend: tokenizers.Tokenizer
) -> list[int]:
    """Ids that end a reply: those of generation_config.json, else of config.json, and the tokenizer's `named` ones."""
    for document, source in ((generation, GENERATION), (config, CONFIG)):
        stated = document.get("eos_token_id")
        if stated is not None:
            ids = _ids(stated, source, backend)
            break
    else:
        ids = []
    return [*ids, *(token_id for name in named if (token_id := backend.token_to_id(name)) is not None)]


def _ids(stated: Any, source: str, backend: tokenizers.Tokenizer) -> list[int]:
    ids = stated if isinstance(stated, list) else [stated]
    if not all(type(token_id) is int for token_id in ids):
        raise SourceError(f"{source}: eos_token_id is {stated!r}, neither an id nor a list of ids", INCOMPLETE)
    return [token_id for token_id in ids if backend.id_to_token(token_id) is not None]


def sampling_defaults(generation: Mapping[str, Any]) -> dict[str, float]:
    """Sampling parameters that the makers recommend, where they sample at all (`do_sample`)."""
    if generation.get("do_sample") is not True:
        return {}
    return {
        name: generation[name]
        for name, allowed in SAMPLING.items()
        if type(generation.get(name)) in (int, float) and math.isfinite(generation[name]) and allowed(generation[name])
    }
