"""Texts to token ids: the template, cutting, refusing."""

from __future__ import annotations

from pathlib import Path

import pytest
import tokenizers

from edgeai.encoder.tokens import EncoderTokenizer
from edgeai.errors import ContextLengthExceeded, InvalidInput, PackageError
from tests.fixtures.encoders import CLS, SEP, VOCAB, tokenizer_document, words


@pytest.fixture(scope="module")
def tokenizer() -> EncoderTokenizer:
    return EncoderTokenizer(tokenizer_document(), max_length=32)


def library(pair: bool = False) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer.from_str(tokenizer_document())
    backend.no_padding()
    backend.enable_truncation(32, strategy="only_second" if pair else "longest_first")
    return backend


@pytest.mark.parametrize("count", [0, 1, 11, 30, 31, 500])
def test_as_the_library_encodes(tokenizer: EncoderTokenizer, count: int) -> None:
    (tokens,) = tokenizer.encode([words(count)], truncate=True)
    expected = library().encode(words(count))
    assert (tokens.ids, tokens.types) == (expected.ids, expected.type_ids)
    assert tokens.ids[0] == CLS
    assert tokens.ids[-1] == SEP


@pytest.mark.parametrize("count", [1, 20, 25, 400])
def test_pairs_as_the_library_encodes(tokenizer: EncoderTokenizer, count: int) -> None:
    (tokens,) = tokenizer.encode_pairs(words(4), [words(count, 50)])
    expected = library(pair=True).encode(words(4), words(count, 50))
    assert (tokens.ids, tokens.types) == (expected.ids, expected.type_ids)
    assert set(tokens.types) == {0, 1}


def test_the_longest_that_fits(tokenizer: EncoderTokenizer) -> None:
    assert len(tokenizer.encode([words(30)])[0]) == 32
    with pytest.raises(ContextLengthExceeded, match=r"input 1 has 33 tokens, but this model reads at most 32"):
        tokenizer.encode([words(30), words(31)])
    assert len(tokenizer.encode_pairs(words(9), [words(20)], truncate=False)[0]) == 32
    with pytest.raises(ContextLengthExceeded, match="document 0 with its query has 33 tokens"):
        tokenizer.encode_pairs(words(9), [words(21)], truncate=False)


def test_a_query_without_room_for_documents(tokenizer: EncoderTokenizer) -> None:
    assert len(tokenizer.encode_pairs(words(28), [words(9)])[0]) == 32
    with pytest.raises(ContextLengthExceeded, match="the query has 29 tokens"):
        tokenizer.encode_pairs(words(29), [words(1)])


def test_ids_of_the_caller(tokenizer: EncoderTokenizer) -> None:
    assert tokenizer.check_ids([CLS, 7, SEP]).ids == [CLS, 7, SEP]
    assert tokenizer.check_ids([5] * 40, truncate=True).ids == [5] * 32
    with pytest.raises(ContextLengthExceeded, match="40 tokens"):
        tokenizer.check_ids([5] * 40)
    for wrong in (VOCAB, 100_000, -1):
        with pytest.raises(InvalidInput, match=f"token {wrong} is outside the {VOCAB} tokens"):
            tokenizer.check_ids([5, wrong])
    with pytest.raises(InvalidInput, match="no token ids"):
        tokenizer.check_ids([])


def test_text_that_is_not_unicode(tokenizer: EncoderTokenizer) -> None:
    with pytest.raises(InvalidInput, match="not valid Unicode"):
        tokenizer.encode(["good", "\ud800"])


def test_damaged_files(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="the tokenizer is damaged"):
        EncoderTokenizer("{}", 32)
    with pytest.raises(PackageError, match="cannot read the tokenizer"):
        EncoderTokenizer.load(tmp_path / "tokenizer.json", 32)
