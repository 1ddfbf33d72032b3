"""What tokens stand for, told from the decoder of a tokenizer.json."""

import pytest

from edgeai.errors import PackageError
from edgeai.text.token_bytes import BYTE_OF_LETTER, TokenBytes

SPACES = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
VOCABULARY = {"▁Hi": 0, "<0x0A>": 1, "<s>": 2, "Ġé": 4, "日": 3}


def table(decoder: dict | None, vocabulary: dict[str, int], added: dict[int, str]) -> list[bytes]:
    """Bytes of all ids, each asked for twice."""
    spellings = {token_id: token for token, token_id in vocabulary.items()}
    found = TokenBytes(decoder, spellings.get, added)
    ids = range(max(spellings) + 1)
    assert [found[i] for i in ids] == [found[i] for i in ids]
    return [found[i] for i in ids]


@pytest.mark.parametrize(
    ("decoder", "expected"),
    [
        ({"type": "ByteLevel"}, ("▁Hi".encode(), b"<0x0A>", b"<s>", "日".encode(), b" \xe9")),
        ({"type": "Metaspace", "replacement": "▁"}, (b" Hi", b"<0x0A>", b"<s>", "日".encode(), "Ġé".encode())),
        (
            {"type": "Sequence", "decoders": [SPACES, {"type": "ByteFallback"}, {"type": "Fuse"}]},
            (b" Hi", b"\n", b"<s>", "日".encode(), "Ġé".encode()),
        ),
        (
            {"type": "Sequence", "decoders": [{"type": "ByteLevel"}]},
            ("▁Hi".encode(), b"<0x0A>", b"<s>", "日".encode(), b" \xe9"),
        ),
    ],
)
def test_by_decoder(decoder: dict, expected: tuple[bytes, ...]) -> None:
    assert table(decoder, VOCABULARY, {2: "<s>"}) == list(expected)


@pytest.mark.parametrize("decoder", [None, {}, {"type": "WordPiece"}, {"type": "Sequence", "decoders": []}])
def test_other_kinds_are_refused(decoder: dict | None) -> None:
    with pytest.raises(PackageError, match="neither a byte-level one nor one of SentencePiece"):
        table(decoder, VOCABULARY, {})


def test_added_tokens_stand_for_their_text_and_gaps_for_nothing() -> None:
    assert table({"type": "ByteLevel"}, {"Ġ": 0, "Ġé": 3}, {3: "Ġé"}) == [b" ", b"", b"", "Ġé".encode()]


def test_every_byte_has_a_letter() -> None:
    assert sorted(BYTE_OF_LETTER.values()) == list(range(256))
