"""The tokenizer of a GGUF file as a `tokenizer.json` for the `tokenizers` library.

llama.cpp is the oracle: control tokens become special added tokens, user-defined ones plain added tokens, so that
encoding equals its `tokenize` both with and without `parse_special`. Equal metadata gives equal bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgeai.sources.gguf_control_tokens import END_TOKENS
from edgeai.sources.gguf_metadata import Contents
from edgeai.sources.gguf_vocabulary import VocabularyMetadata, read_document, read_vocabulary
from edgeai.sources.tokenizer_json import CONTROL, Vocabulary, leading, serialize
from edgeai.sources.weights import TokenizerFiles

END_KEYS = ("eos_token_id", "eot_token_id", "eom_token_id")
TEMPLATE_NAMES = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}


def read_tokenizer(file: Contents, *, vocab_size: int) -> TokenizerFiles:
    """Rebuild the tokenizer; `UnsupportedModel` for a kind that is not known, `SourceError` for damaged metadata."""
    metadata = VocabularyMetadata(file, vocab_size)
    vocabulary = read_vocabulary(metadata)
    document, adds_bos = read_document(metadata, vocabulary)
    bos = metadata.token_id("bos_token_id")
    add_bos = metadata.flag("add_bos_token", adds_bos) and bos is not None
    if add_bos and bos is not None:
        document["post_processor"] = leading(vocabulary.tokens[bos], bos)
    return TokenizerFiles(
        tokenizer_json=serialize(document, metadata.name),
        chat_template=metadata.get("tokenizer.chat_template", str),
        eos_token_ids=_end_ids(metadata, vocabulary),
        bos_token_id=bos,
        add_bos=add_bos,
        special_tokens=_special_tokens(metadata, vocabulary.tokens),
    )


def _end_ids(metadata: VocabularyMetadata, vocabulary: Vocabulary) -> tuple[int, ...]:
    """Tokens that end a reply, the metadata's own first."""
    named = [metadata.token_id(key) for key in END_KEYS]
    pairs = enumerate(zip(vocabulary.tokens, vocabulary.types, strict=True))
    known = [index for index, (token, kind) in pairs if token in END_TOKENS and kind == CONTROL]
    return tuple(dict.fromkeys(index for index in [*named, *known] if index is not None))


def _special_tokens(metadata: VocabularyMetadata, tokens: Sequence[str]) -> dict[str, str]:
    ids = {name: metadata.token_id(f"{key}_token_id") for name, key in TEMPLATE_NAMES.items()}
    return {name: tokens[index] for name, index in ids.items() if index is not None}
