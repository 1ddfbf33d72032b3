"""A byte-level BPE tokenizer in the files before tokenizer.json: `vocab.json` and `merges.txt`.

Neither says how text is cut into words: transformers knows that by the tokenizer's class. Classes that are not in this
table are refused, because a wrong cut degrades answers silently.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeai.errors import SourceError, UnsupportedModel
from edgeai.sources.checkpoint_files import INCOMPLETE, read_json
from edgeai.sources.gguf_pretokenizers import PRE_TOKENIZERS
from edgeai.sources.tokenizer_json import NORMAL, Vocabulary, byte_level_bpe

VOCABULARY, MERGES = "vocab.json", "merges.txt"


@dataclass(frozen=True, slots=True)
class Cut:
    """How a class of tokenizers prepares text: the expressions' name in GGUF's table, and Unicode's NFC form."""

    expressions: str
    compose: bool = False


CLASSES: Mapping[str, Cut] = {"GPT2Tokenizer": Cut("gpt-2"), "Qwen2Tokenizer": Cut("qwen2", compose=True)}


def read_bpe(folder: Path, tokenizer_class: str) -> dict[str, Any]:
    """The tokenizer.json of a folder's `vocab.json` and `merges.txt`. Raises `SourceError` for what is damaged."""
    cut = CLASSES.get(tokenizer_class.removesuffix("Fast"))
    if cut is None:
        who = tokenizer_class or "it"
        raise UnsupportedModel(
            f"{folder.name} has no tokenizer.json but {VOCABULARY}; how {who} cuts words is not known",
            f"known: {', '.join(CLASSES)}; or make a tokenizer.json with transformers",
        )
    tokens = _tokens(read_json(folder / VOCABULARY))
    vocabulary = Vocabulary(tokens, [NORMAL] * len(tokens))
    document = byte_level_bpe(vocabulary, _merges(folder / MERGES), PRE_TOKENIZERS[cut.expressions].to_json())
    return document | ({"normalizer": {"type": "NFC"}} if cut.compose else {})


def _tokens(vocabulary: Mapping[str, Any]) -> list[str]:
    """Tokens in order of their ids, which have to be the numbers from 0 on."""
    tokens: list[str | None] = [None] * len(vocabulary)
    for token, token_id in vocabulary.items():
        if type(token_id) is not int or not 0 <= token_id < len(tokens) or tokens[token_id] is not None:
            raise SourceError(f"{VOCABULARY}: token {token!r} has the id {token_id!r} among {len(tokens)}", INCOMPLETE)
        tokens[token_id] = token
    return [token for token in tokens if token is not None]


def _merges(path: Path) -> list[tuple[str, str]]:
    """Pairs in order of rank; the first line may name a version."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"cannot read {path.name}: {error}", INCOMPLETE) from error
    merges = []
    for number, line in enumerate(lines, 1):
        if not line or (number == 1 and line.startswith("#version")):
            continue
        pair = line.split(" ")
        if len(pair) != 2:
            raise SourceError(f"{path.name}: line {number} is no pair of tokens: {line!r}", INCOMPLETE)
        merges.append((pair[0], pair[1]))
    return merges
