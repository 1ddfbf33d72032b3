"""The vocabulary in a GGUF file's metadata, and the tokenizer.json it makes, by the value of `tokenizer.ggml.model`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edgeai.errors import SourceError, UnsupportedModel
from edgeai.sources.gguf_control_tokens import CONTROL_TOKENS, ORDINARY_END
from edgeai.sources.gguf_metadata import INCOMPLETE, Contents, Metadata
from edgeai.sources.gguf_pretokenizers import pre_tokenizer
from edgeai.sources.sentencepiece_charsmap import check_charsmap
from edgeai.sources.sentencepiece_json import (
    SentencePiece,
    sentencepiece_bpe,
    sentencepiece_merges,
    sentencepiece_unigram,
)
from edgeai.sources.tokenizer_json import ADDED, CONTROL, NORMAL, Vocabulary, byte_level_bpe

PREFIX = "tokenizer.ggml."

# Ids that llama.cpp assumes where the metadata does not say.
ASSUMED_IDS: Mapping[str, Mapping[str, int]] = {
    "llama": {"bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0},
    "t5": {"eos_token_id": 1, "unknown_token_id": 2, "padding_token_id": 0},
}
PHI3 = ("phi-3", "phi3")  # in a model's name: its control tokens take the whitespace behind them
KEEP_SPACE_BEHIND = frozenset({"<unk>", "<s>", "<|endoftext|>"})


class VocabularyMetadata(Metadata):
    """Typed access to the tokenizer's metadata."""

    def __init__(self, file: Contents, vocab_size: int) -> None:
        super().__init__(file)
        self.vocab_size = vocab_size

    @property
    def model(self) -> str:
        """Which kind of tokenizer it is."""
        model: str = self.require(PREFIX + "model", str)
        return model

    def flag(self, name: str, default: bool) -> bool:
        """A yes or no."""
        value: bool = self.get(PREFIX + name, bool, default)
        return value

    def list_of(self, name: str, *kinds: type[Any]) -> list[Any]:
        """A list that has to be there, all of whose values are of one of these kinds."""
        values: list[Any] = self.require(PREFIX + name, list)
        if not all(isinstance(value, kinds) for value in values):
            raise SourceError(f"{self.name}: {PREFIX + name} is not a list of {kinds[0].__name__}", INCOMPLETE)
        return values

    def token_id(self, name: str) -> int | None:
        """A token id, the one that llama.cpp assumes, or None."""
        value: int | None = self.get(PREFIX + name, int, ASSUMED_IDS.get(self.model, {}).get(name))
        if value is not None and not 0 <= value < self.vocab_size:
            raise SourceError(f"{self.name}: {name} is {value}, outside the {self.vocab_size} tokens", INCOMPLETE)
        return value


def read_vocabulary(metadata: VocabularyMetadata) -> Vocabulary:
    """Tokens and types; every token is another one, and there are as many as the token table has rows."""
    tokens = _tokens(metadata)
    types = _types(metadata, tokens)
    return Vocabulary(tokens, types, _swallowing(metadata, tokens, types))


def read_document(metadata: VocabularyMetadata, vocabulary: Vocabulary) -> tuple[dict[str, Any], bool]:
    """The tokenizer.json, and whether this kind adds BOS where the metadata does not say."""
    if metadata.model not in KINDS:
        raise UnsupportedModel(
            f"{metadata.name}: tokenizer {metadata.model!r} is not supported", f"supported: {', '.join(KINDS)}"
        )
    return KINDS[metadata.model](metadata, vocabulary)


def _byte_level(metadata: VocabularyMetadata, vocabulary: Vocabulary) -> tuple[dict[str, Any], bool]:
    pre = pre_tokenizer(metadata.get(PREFIX + "pre", str, "default"), metadata.name)
    merges = _merges(metadata, vocabulary.tokens)
    document = byte_level_bpe(vocabulary, merges, pre.to_json(), ignore_merges=pre.ignore_merges)
    return document, pre.add_bos


def _scored_bpe(metadata: VocabularyMetadata, vocabulary: Vocabulary) -> tuple[dict[str, Any], bool]:
    return sentencepiece_bpe(_sentencepiece(metadata, vocabulary, space_prefix=True)), True


def _unigram(metadata: VocabularyMetadata, vocabulary: Vocabulary) -> tuple[dict[str, Any], bool]:
    return sentencepiece_unigram(_sentencepiece(metadata, vocabulary, space_prefix=False)), False


def _merged_bpe(metadata: VocabularyMetadata, vocabulary: Vocabulary) -> tuple[dict[str, Any], bool]:
    """SentencePiece's spelling with the merges given in order of rank."""
    return sentencepiece_merges(vocabulary, _merges(metadata, vocabulary.tokens)), True


KINDS: Mapping[str, Callable[[VocabularyMetadata, Vocabulary], tuple[dict[str, Any], bool]]] = {
    "gpt2": _byte_level,
    "llama": _scored_bpe,
    "t5": _unigram,
    "gemma4": _merged_bpe,
}


def _sentencepiece(metadata: VocabularyMetadata, vocabulary: Vocabulary, *, space_prefix: bool) -> SentencePiece:
    scores = [float(score) for score in metadata.list_of("scores", float, int)]
    if len(scores) != len(vocabulary.tokens):
        raise SourceError(f"{metadata.name}: {len(scores)} scores for {len(vocabulary.tokens)} tokens", INCOMPLETE)
    return SentencePiece(
        vocabulary,
        scores,
        add_space_prefix=metadata.flag("add_space_prefix", space_prefix),
        remove_extra_spaces=metadata.flag("remove_extra_whitespaces", False),
        charsmap=_charsmap(metadata),
    )


def _charsmap(metadata: VocabularyMetadata) -> bytes:
    if PREFIX + "precompiled_charsmap" not in metadata.values:
        return b""
    values = metadata.list_of("precompiled_charsmap", int)
    if not all(-128 <= value < 256 for value in values):
        raise SourceError(f"{metadata.name}: {PREFIX}precompiled_charsmap holds more than bytes", INCOMPLETE)
    charsmap = bytes(value & 255 for value in values)
    check_charsmap(charsmap, metadata.name)
    return charsmap


def _tokens(metadata: VocabularyMetadata) -> list[str]:
    tokens = metadata.list_of("tokens", str)
    if len(tokens) != metadata.vocab_size:
        raise SourceError(
            f"{metadata.name}: {len(tokens)} tokens for an embedding of {metadata.vocab_size} rows", INCOMPLETE
        )
    named = [token or f"[EMPTY_{index}]" for index, token in enumerate(tokens)]
    if len(set(named)) != len(named):
        raise SourceError(f"{metadata.name}: the vocabulary lists a token twice", INCOMPLETE)
    return named


def _types(metadata: VocabularyMetadata, tokens: Sequence[str]) -> list[int]:
    """The type of each token; control tokens that were converted with another type are that all the same."""
    types: list[int] = [NORMAL] * len(tokens)
    if PREFIX + "token_type" in metadata.values:
        types = metadata.list_of("token_type", int)
    if len(types) != len(tokens):
        raise SourceError(f"{metadata.name}: {len(types)} token types for {len(tokens)} tokens", INCOMPLETE)
    control = CONTROL_TOKENS - ({"</s>"} if ORDINARY_END in tokens else set())
    return [CONTROL if token in control else kind for token, kind in zip(tokens, types, strict=True)]


def _swallowing(metadata: VocabularyMetadata, tokens: Sequence[str], types: Sequence[int]) -> frozenset[int]:
    """Tokens that take the whitespace behind them: the file does not say, llama.cpp goes by the model's name."""
    name = str(metadata.values.get("general.name", "")).lower()
    if not any(word in name for word in PHI3):
        return frozenset()
    pairs = enumerate(zip(tokens, types, strict=True))
    return frozenset(index for index, (token, kind) in pairs if kind in ADDED and token not in KEEP_SPACE_BEHIND)


def _merges(metadata: VocabularyMetadata, tokens: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs in order of rank. Those that cannot make a token mean nothing to llama.cpp, an error to `tokenizers`."""
    known = set(tokens)
    merges: dict[tuple[str, str], None] = {}
    for merge in metadata.list_of("merges", str):
        cut = merge.find(" ", 1)
        if cut < 0:
            raise SourceError(f"{metadata.name}: merge {merge!r} is not a pair", INCOMPLETE)
        left, right = merge[:cut], merge[cut + 1 :]
        if {left, right, left + right} <= known:
            merges.setdefault((left, right))
    return list(merges)
