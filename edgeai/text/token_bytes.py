"""The bytes that each token stands for, told from its spelling: byte-level vocabularies and SentencePiece's.

A byte-level vocabulary spells every byte as a letter. SentencePiece spells a space as U+2581, and has tokens such as
``<0x0A>`` for the bytes of characters that are not in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from edgeai.errors import PackageError

SPACE = "\u2581"  # SentencePiece's
BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")


class TokenBytes:
    """Bytes by token id; added tokens stand for their own text, ids without a spelling for nothing.

    They are worked out when they are asked for: a table of a whole vocabulary takes longer to make, and more memory,
    than the tokens that are ever seen.
    """

    def __init__(self, decoder: Any, spelling: Callable[[int], str | None], added: Mapping[int, str]) -> None:
        """`decoder` is that of a tokenizer.json, `spelling` a token's in the vocabulary, `added` the added tokens'.

        Raises `PackageError` for other kinds of tokenizer.
        """
        self._meaning = _meaning(decoder)
        self._spelling = spelling
        self._known = {token_id: text.encode() for token_id, text in added.items()}

    def table(self, size: int) -> list[bytes]:
        """The bytes of ids 0 to `size` - 1, none of them kept here."""
        return [self._known[token] if token in self._known else self._spelled(token) for token in range(size)]

    def _spelled(self, token_id: int) -> bytes:
        spelling = self._spelling(token_id)
        return b"" if spelling is None else self._meaning(spelling)

    def __getitem__(self, token_id: int) -> bytes:
        """The bytes of an id, which must not be negative."""
        known = self._known.get(token_id)
        if known is None:
            known = self._known[token_id] = self._spelled(token_id)
        return known


def _meaning(decoder: Any) -> Callable[[str], bytes]:
    """What a vocabulary entry means, told from the way the library would decode it."""
    steps = {step.get("type"): step for step in _steps(decoder)}
    if "ByteLevel" in steps:
        return unmapped
    space = steps.get("Metaspace", {}).get("replacement") or steps.get("Replace", {}).get("pattern", {}).get("String")
    if space == SPACE:
        return _piece_with_bytes if "ByteFallback" in steps else _piece
    raise PackageError(
        "the tokenizer is neither a byte-level one nor one of SentencePiece", "only these two kinds are supported"
    )


def _steps(decoder: Any) -> Iterator[Mapping[str, Any]]:
    """A decoder, or the decoders it is a sequence of."""
    if isinstance(decoder, dict):
        yield decoder
        for inner in decoder.get("decoders", []):
            yield from _steps(inner)


def _piece(token: str) -> bytes:
    return token.replace(SPACE, " ").encode()


def _piece_with_bytes(token: str) -> bytes:
    match = BYTE_TOKEN.fullmatch(token)
    return bytes([int(match[1], 16)]) if match else _piece(token)


def _letters_of_bytes() -> dict[str, int]:
    """GPT-2's letters for bytes (`bytes_to_unicode`): printable Latin-1 as it is, the rest from U+0100 onwards."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(0x100 + index): byte for index, byte in enumerate(rest)}


BYTE_OF_LETTER = _letters_of_bytes()


def unmapped(token: str) -> bytes:
    """The bytes of a byte-level entry; as in the library, one with other letters stands for its own UTF-8."""
    try:
        return bytes([BYTE_OF_LETTER[letter] for letter in token])
    except KeyError:
        return token.encode()
