"""Precompiled normalizer tables: looked up as SentencePiece does, and damaged ones found before anything uses them."""

import unicodedata

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeai.errors import SourceError
from edgeai.sources.sentencepiece_charsmap import check_charsmap, composes, replacement
from tests.fixtures.sentencepieces import described

TABLE = described("unigram").charsmap


def test_entries_are_those_of_nfkc() -> None:
    for letter in "ﬁｱ①²Ⅷ㍿…":
        assert replacement(TABLE, letter.encode()) == unicodedata.normalize("NFKC", letter).encode()
    for letter in "aé日":
        assert replacement(TABLE, letter.encode()) is None
    assert replacement(TABLE, "e\u0301".encode()) == "é".encode()
    assert replacement(TABLE, b"") is None


def test_whether_accents_are_composed() -> None:
    assert composes(TABLE)
    for charsmap in (b"", b"\1", bytes(40), bytes(range(200)), TABLE[:5000]):
        assert not composes(charsmap)


@pytest.mark.parametrize(
    "damaged", [b"", b"\1", bytes(4), bytes(40), TABLE[:5000], TABLE[:-1], TABLE + b"x", TABLE[1:]]
)
def test_damaged_tables_are_refused(damaged: bytes) -> None:
    with pytest.raises(SourceError, match=r"model\.gguf: the precompiled table"):
        check_charsmap(damaged, "model.gguf")


def flipped(*places: tuple[int, int]) -> bytes:
    table = bytearray(TABLE)
    for place, bit in places:
        table[place] ^= 1 << bit
    return bytes(table)


def test_a_root_that_says_it_is_a_leaf_is_refused() -> None:
    with pytest.raises(SourceError, match="precompiled table"):
        check_charsmap(flipped((4 + 3, 7)), "model.gguf")


def test_a_replacement_that_would_begin_inside_a_character_is_refused() -> None:
    units = np.frombuffer(TABLE, "<u4", int.from_bytes(TABLE[:4], "little") // 4, 4)
    strings = TABLE[4 + 4 * len(units) :]
    inside = next(place for place, byte in enumerate(strings) if byte & 0xC0 == 0x80)
    table = bytearray(TABLE)
    leaf = int(np.flatnonzero(units >> 31)[0])
    table[4 + 4 * leaf : 8 + 4 * leaf] = (inside | 1 << 31).to_bytes(4, "little")
    with pytest.raises(SourceError, match="precompiled table"):
        check_charsmap(bytes(table), "model.gguf")


@settings(max_examples=60)
@given(flips=st.lists(st.tuples(st.integers(0, len(TABLE) - 1), st.integers(0, 7)), min_size=1, max_size=6))
def test_what_passes_the_check_never_breaks_the_library(flips: list[tuple[int, int]]) -> None:
    table = flipped(*flips)
    try:
        check_charsmap(table, "model.gguf")
    except SourceError:
        return
    normalizer = tokenizers.normalizers.Precompiled(table)
    for text in ("plain", "ﬁne ①②③ ｱｲｳ", "e\u0301a\u0308\u0304", "".join(map(chr, range(0xA0, 0x500)))):
        assert isinstance(normalizer.normalize_str(text), str)
