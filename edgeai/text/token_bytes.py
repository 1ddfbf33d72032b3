"""The bytes that each token stands for, from a tokenizer.json: byte-level vocabularies and SentencePiece's.

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


def table_of_bytes(
    document: Mapping[str, Any], vocabulary: Mapping[str, int], added: Mapping[int, Any]
) -> tuple[bytes, ...]:
    """Bytes by token id; added tokens stand for their own text. Raises `PackageError` for other kinds of tokenizer."""
    meaning = _meaning(document)
    table = [b""] * (max(vocabulary.values(), default=-1) + 1)
    for token, token_id in vocabulary.items():
        table[token_id] = token.encode() if token_id in added else meaning(token)
    return tuple(table)


def _meaning(document: Mapping[str, Any]) -> Callable[[str], bytes]:
    """What a vocabulary entry means, told from the way the library would decode it."""
    steps = {step.get("type"): step for step in _steps(document.get("decoder"))}
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
