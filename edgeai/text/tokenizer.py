"""Text to token ids and back, over the `tokenizers` library, with control tokens kept out of reach of user text.

Three ways to encode, which differ only in text that spells a control token such as ``<|im_end|>``:

- ``encode(text, parse_special=True)``: it is that token (trusted prompts);
- ``encode(text, parse_special=False)``: it is ordinary text;
- ``encode_shielded(text)``: it is that token, unless `shield` marked it as ordinary text before. This is how chat
  prompts are built: messages are shielded, rendered by the template and encoded as a whole, so that words and merges
  across the borders of messages come out exactly as from the plain text, and no message can end its own turn.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import tokenizers

from edgeai.errors import InvalidInput, PackageError

# A noncharacter (Unicode 23.7: not for interchange) that makes the character after it ordinary, as a backslash does.
SHIELD = "\ufdd0"
LONG_TEXT = 4096  # characters


class Tokenizer:
    """A byte-level tokenizer. Safe to share between threads: nothing changes after construction."""

    def __init__(self, document: str, *, bos_token_id: int | None = None) -> None:
        """Build from the text of a tokenizer.json. Raises `PackageError` when it is damaged or not byte-level."""
        self._backend = _build(document)
        self.bos_token_id = bos_token_id
        added = self._backend.get_added_tokens_decoder()
        _refuse_stripping(added)
        self._control = {token.content: token_id for token_id, token in added.items() if token.special}
        self._control_ids = frozenset(self._control.values())
        self._bytes = _table_of_bytes(self._backend.get_vocab(with_added_tokens=True), added)
        if bos_token_id is not None and not 0 <= bos_token_id < self.vocab_size:
            raise PackageError(f"BOS token {bos_token_id} is outside the {self.vocab_size} tokens")
        names = "|".join(re.escape(name) for name in sorted(self._control, key=len, reverse=True)) or "(?!)"
        self._named = re.compile(f"(?P<control>{names})")
        self._named_or_shielded = re.compile(f"(?s:{SHIELD}(?P<text>.?))|(?P<control>{names})")
        self._exposed = re.compile(f"(?=(?:{names}|{SHIELD}))")
        self._beginnings = frozenset(name[:end] for name in self._control for end in range(1, len(name)))

    @classmethod
    def load(cls, path: Path, *, bos_token_id: int | None = None) -> Tokenizer:
        """Read a tokenizer.json; `bos_token_id` is what `add_bos` puts in front."""
        try:
            document = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise PackageError(f"cannot read the tokenizer {path}: {error}", "build the package again") from error
        return cls(document, bos_token_id=bos_token_id)

    @property
    def vocab_size(self) -> int:
        """Number of token ids, added tokens included."""
        return len(self._bytes)

    @property
    def control_tokens(self) -> frozenset[int]:
        """Ids that structure a prompt and are never shown: end of turn, begin of text, ..."""
        return self._control_ids

    def encode(self, text: str, *, add_bos: bool = False, parse_special: bool = False) -> list[int]:
        """Token ids of `text`. Raises `InvalidInput` for text that is not Unicode (lone surrogates).

        With `parse_special`, text that spells a control token is that token; without, it is encoded as text.
        """
        ids = self._encode_runs(text, self._named) if parse_special else self._encode_text(text)
        return self._leading(add_bos) + ids

    def shield(self, value: Any) -> Any:
        """A copy of a string, or of all strings in lists and mappings, in which control tokens are marked as text.

        The beginning of a control token at the end of a string is marked too: a template may put strings together.
        """
        if isinstance(value, str):
            return self._shield_text(value)
        if isinstance(value, dict):
            return {self.shield(key): self.shield(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.shield(item) for item in value]
        return value

    def encode_shielded(self, text: str, *, add_bos: bool = False) -> list[int]:
        """Token ids of text made of trusted parts and parts that went through `shield`.

        `add_bos` puts BOS in front unless the text starts with it.
        """
        ids = self._encode_runs(text, self._named_or_shielded if SHIELD in text else self._named)
        return ids if ids[:1] == [self.bos_token_id] else self._leading(add_bos) + ids

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes a token stands for; of a control token its name. Raises `InvalidInput` for an id out of range."""
        if not 0 <= token_id < len(self._bytes):
            raise InvalidInput(f"token {token_id} is outside the {len(self._bytes)} tokens of the vocabulary")
        return self._bytes[token_id]

    def sampled_bytes(self, token_id: int) -> bytes:
        """The bytes of what a model gave: heads are often padded beyond the vocabulary, and such an id says nothing."""
        return self._bytes[token_id] if token_id < len(self._bytes) else b""

    def decode(self, ids: Sequence[int], *, skip_control: bool = True) -> str:
        """Text of `ids`. Bytes that are not UTF-8 become U+FFFD; control tokens are left out unless asked for."""
        shown = (self.token_bytes(i) for i in ids if not (skip_control and i in self._control_ids))
        return b"".join(shown).decode("utf-8", errors="replace")

    def _leading(self, add_bos: bool) -> list[int]:
        return [self.bos_token_id] if add_bos and self.bos_token_id is not None else []

    def _shield_text(self, text: str) -> str:
        """Put a shield before each control token (overlapping ones too), each shield, and a token begun at the end."""
        marks = {match.start() for match in self._exposed.finditer(text)}
        longest = max(map(len, self._beginnings), default=0)
        marks |= {
            len(text) - size for size in range(1, min(longest, len(text)) + 1) if text[-size:] in self._beginnings
        }
        bounds = [0, *sorted(marks), len(text)]
        return SHIELD.join(text[start:end] for start, end in pairwise(bounds))

    def _encode_text(self, text: str) -> list[int]:
        try:
            if len(text) <= LONG_TEXT:
                ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
            else:
                # `encode` keeps the interpreter's lock for seconds of a long text; a batch lets other threads run.
                ids = self._backend.encode_batch_fast([text], add_special_tokens=False)[0].ids
        except (TypeError, UnicodeEncodeError) as error:
            raise InvalidInput("the text is not valid Unicode: it holds half of a surrogate pair") from error
        return ids

    def _encode_runs(self, text: str, pattern: re.Pattern[str]) -> list[int]:
        """Encode the text between control tokens, its shields removed, and the control tokens by id."""
        ids: list[int] = []
        for run, control in self._runs(text, pattern):
            ids += self._encode_text(run) if run else []
            ids += [] if control is None else [control]
        return ids

    def _runs(self, text: str, pattern: re.Pattern[str]) -> Iterator[tuple[str, int | None]]:
        """Runs of ordinary text, each with the control token that ends it (None at the end)."""
        parts: list[str] = []
        at = 0
        for match in pattern.finditer(text):
            parts.append(text[at : match.start()])
            at = match.end()
            if match["control"] is None:
                parts.append(match["text"])
            else:
                yield "".join(parts), self._control[match["control"]]
                parts = []
        yield "".join([*parts, text[at:]]), None


def _build(document: str) -> tokenizers.Tokenizer:
    """The library's tokenizer, told to take control tokens as text: they are cut out here, where shields are known."""
    try:
        backend = tokenizers.Tokenizer.from_str(document)
    except Exception as error:  # the library raises plain Exception
        raise PackageError(f"the tokenizer is damaged: {error}", "build the package again") from error
    if not isinstance(backend.decoder, tokenizers.decoders.ByteLevel):
        raise PackageError("the tokenizer is not a byte-level one", "only byte-level tokenizers are supported")
    backend.encode_special_tokens = True
    return backend


def _refuse_stripping(added: dict[int, tokenizers.AddedToken]) -> None:
    stripping = [token.content for token in added.values() if token.lstrip or token.rstrip]
    if stripping:
        raise PackageError(f"tokens that swallow the spaces around them are not supported: {', '.join(stripping)}")


def _table_of_bytes(vocabulary: dict[str, int], added: dict[int, tokenizers.AddedToken]) -> tuple[bytes, ...]:
    table = [b""] * (max(vocabulary.values(), default=-1) + 1)
    for token, token_id in vocabulary.items():
        table[token_id] = token.encode() if token_id in added else _unmapped(token)
    return tuple(table)


def _letters_of_bytes() -> dict[str, int]:
    """GPT-2's letters for bytes (`bytes_to_unicode`): printable Latin-1 as it is, the rest from U+0100 onwards."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(0x100 + index): byte for index, byte in enumerate(rest)}


BYTE_OF_LETTER = _letters_of_bytes()


def _unmapped(token: str) -> bytes:
    """The bytes of a vocabulary entry; as in the library, one with other letters stands for its own UTF-8."""
    try:
        return bytes([BYTE_OF_LETTER[letter] for letter in token])
    except KeyError:
        return token.encode()
