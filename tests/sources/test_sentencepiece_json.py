"""SentencePiece vocabularies as tokenizer.json, against SentencePiece itself."""

import json

import pytest

from edgeai.sources.sentencepiece_json import SentencePiece, sentencepiece_bpe, sentencepiece_unigram
from edgeai.sources.tokenizer_json import CONTROL, NORMAL, UNKNOWN, Vocabulary, serialize
from edgeai.text import Tokenizer
from tests.fixtures.sentencepieces import BPE, MODELS, described, processor, rebuilt
from tests.fixtures.texts import corpus

# What the library's own normalizer cannot do: it puts accents in canonical order, and drops an accent behind a sign
# that is itself replaced. And two spellings of equal score: runs of one digit, cut from the left or from the right.
ALLOWED = {"bpe normalized": 9, "unigram": 4, "unigram untouched": 4}
TEXTS = [text for text in corpus() if "\0" not in text]


@pytest.mark.parametrize("name", MODELS)
def test_equals_sentencepiece(name: str) -> None:
    theirs, ours = processor(name), rebuilt(name)
    different = [text for text in TEXTS if theirs.encode(text) != ours.encode(text)]
    assert len(TEXTS) > 2500
    assert len(different) <= ALLOWED.get(name, 0), different


@pytest.mark.parametrize("name", ["bpe", "bpe without prefix", "unigram with bytes"])
def test_bytes_of_the_tokens_are_the_text(name: str) -> None:
    """Whatever is in the text comes back, behind the space that is put in front of it."""
    tokenizer = rebuilt(name)
    prefix = " " if described(name).add_space_prefix else ""
    for text in TEXTS:
        assert tokenizer.decode(tokenizer.encode(text)) == (prefix + text if text else "")


@pytest.mark.parametrize("name", MODELS)
def test_plain_text_never_becomes_a_control_token(name: str) -> None:
    tokenizer, vocabulary = rebuilt(name), described(name).vocabulary
    control = {index for index, kind in enumerate(vocabulary.types) if kind == CONTROL}
    assert len(control) >= 2
    for token in [vocabulary.tokens[index] for index in control]:
        for text in (token, f"a{token}b", f" {token}", token * 3):
            assert not set(tokenizer.encode(text)) & control
            assert set(tokenizer.encode(text, parse_special=True)) & control


@pytest.mark.parametrize("name", ["bpe", "unigram with bytes"])
def test_tokens_for_bytes_are_not_spelled_out(name: str) -> None:
    tokenizer, vocabulary = rebuilt(name), described(name).vocabulary
    snow = [vocabulary.tokens.index(f"<0x{byte:02X}>") for byte in "\u2603".encode()]
    assert b"".join(map(tokenizer.token_bytes, snow)) == "\u2603".encode()
    assert tokenizer.encode("a\u2603")[-3:] == snow
    assert not set(tokenizer.encode("<0xE2>")) & set(snow)


def test_control_tokens_do_not_merge_even_where_their_halves_are_tokens() -> None:
    """llama.cpp, which looks merges up by text alone, makes the control token here."""
    tokens = ["<unk>", "<s>", "<", "s", ">", "s>", "\u2581"]
    types = [UNKNOWN, CONTROL] + [NORMAL] * 5
    model = SentencePiece(Vocabulary(tokens, types), [0.0, 0.0, -9.0, -9.0, -9.0, -1.0, -9.0], add_space_prefix=False)
    tokenizer = Tokenizer(serialize(sentencepiece_bpe(model), "test").decode())
    assert tokenizer.encode("<s>") == [2, 5]
    assert tokenizer.encode("<s>", parse_special=True) == [1]


def test_merges_come_in_order_of_scores() -> None:
    tokens = ["<unk>", "a", "b", "c", "bc", "ab"]
    scores = [0.0, -9.0, -9.0, -9.0, -1.0, -2.0]
    model = SentencePiece(Vocabulary(tokens, [UNKNOWN] + [NORMAL] * 5), scores, add_space_prefix=False)
    assert sentencepiece_bpe(model)["model"]["merges"] == [("b", "c"), ("a", "b")]
    assert Tokenizer(serialize(sentencepiece_bpe(model), "test").decode()).encode("abc") == [1, 4]


@pytest.mark.parametrize("name", MODELS)
def test_equal_vocabularies_give_equal_bytes(name: str) -> None:
    build = sentencepiece_bpe if name in BPE else sentencepiece_unigram
    first, second = (serialize(build(described(name)), name) for _ in range(2))
    assert first == second
    assert len(json.loads(first)["model"]["vocab"]) == 700
