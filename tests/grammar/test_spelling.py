"""Text cut into the longest tokens says the same."""

from __future__ import annotations

from edgeai.grammar.spelling import Spelling
from edgeai.text import Tokenizer


def test_cut_text_spells_itself(smollm_tokenizer: Tokenizer) -> None:
    spelling = Spelling(smollm_tokenizer.all_bytes(), smollm_tokenizer.control_tokens)
    for text in ('{"city": "Nairobi", "unit": "celsius"}', "Grüße, 東京!\n\n", "<|im_end|> is no control token", ""):
        ids = spelling.cut(text.encode())
        assert spelling.text(ids) == text.encode()
        assert not spelling.special & set(ids)


def test_the_longest_tokens_come_first_and_what_no_token_spells_ends_it() -> None:
    spelling = Spelling([b"a", b"ab", b"b", b"<end>", b""], special=[3])
    assert spelling.cut(b"abba") == [1, 2, 0]
    assert spelling.cut(b"ab<end>") == [1]
    assert spelling.cut(b"") == []
