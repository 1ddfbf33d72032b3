"""Text to the token ids of an encoder, special tokens included, over the `tokenizers` library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tokenizers

from edgeai.errors import ContextLengthExceeded, InvalidInput, PackageError

__all__ = ["EncoderTokenizer", "Tokens"]


@dataclass(frozen=True, slots=True)
class Tokens:
    """One sequence: token ids, and for each whether it belongs to the first text (0) or the second (1)."""

    ids: Sequence[int]
    types: Sequence[int]

    def __len__(self) -> int:
        return len(self.ids)


class EncoderTokenizer:
    """Encodes texts and pairs of texts to at most `max_length` tokens. Safe to share between threads.

    Text that is too long is cut at its end where `truncate` says so, and refused otherwise; of a pair only the second
    text is ever cut. Text that spells a special token is that token, as in the models' own tokenizers.
    """

    def __init__(self, document: str, max_length: int) -> None:
        """Build from the text of a tokenizer.json. Raises `PackageError` when it is damaged."""
        try:
            self._backend = tokenizers.Tokenizer.from_str(document)
        except Exception as error:  # the library raises plain Exception
            raise PackageError(f"the tokenizer is damaged: {error}", "build the package again") from error
        self._backend.no_padding()
        self._backend.no_truncation()
        self.max_length = max_length
        self.vocab_size: int = max(self._backend.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    @classmethod
    def load(cls, path: Path, max_length: int) -> EncoderTokenizer:
        """Read a tokenizer.json. Raises `PackageError`."""
        try:
            document = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise PackageError(f"cannot read the tokenizer {path}: {error}", "build the package again") from error
        return cls(document, max_length)

    def encode(self, texts: Sequence[str], *, truncate: bool = False) -> list[Tokens]:
        """Tokens of each text. Raises `ContextLengthExceeded`, and `InvalidInput` for text that is not Unicode."""
        room = self.max_length - self._backend.num_special_tokens_to_add(False)
        encoded = self._plain(texts)
        for number, entry in enumerate(encoded):
            self._fit(entry, room, truncate, f"input {number}" if len(texts) > 1 else "the input")
        return [_tokens(self._backend.post_process(entry, None, True)) for entry in encoded]

    def encode_pairs(self, first: str, seconds: Sequence[str], *, truncate: bool = True) -> list[Tokens]:
        """Tokens of `first` with each of `seconds`. Raises as `encode` does, also where `first` leaves no room."""
        special = self._backend.num_special_tokens_to_add(True)
        query, *others = self._plain([first, *seconds])
        room = self.max_length - special - len(query.ids)
        if room < 1:
            raise ContextLengthExceeded(
                f"the query has {len(query.ids)} tokens, which leaves no room for documents within the model's"
                f" {self.max_length}",
                "shorten it",
                param="query",
            )
        for number, entry in enumerate(others):
            self._fit(entry, room, truncate, f"document {number} with its query")
        return [_tokens(self._backend.post_process(query, entry, True)) for entry in others]

    def check_ids(self, ids: Sequence[int], *, truncate: bool = False) -> Tokens:
        """Token ids that the caller made, special tokens included. Raises `InvalidInput`, `ContextLengthExceeded`."""
        if not ids:
            raise InvalidInput("there are no token ids", param="input")
        if not 0 <= min(ids) <= max(ids) < self.vocab_size:
            wrong = max(ids) if max(ids) >= self.vocab_size else min(ids)
            raise InvalidInput(
                f"token {wrong} is outside the {self.vocab_size} tokens of this model's vocabulary",
                "send text, or ids of this model's own tokenizer",
                param="input",
            )
        if len(ids) > self.max_length and not truncate:
            raise self._too_long(len(ids), "the input")
        kept = list(ids[: self.max_length])
        return Tokens(kept, [0] * len(kept))

    def _plain(self, texts: Sequence[str]) -> list[tokenizers.Encoding]:
        try:
            encoded: list[tokenizers.Encoding] = self._backend.encode_batch(list(texts), add_special_tokens=False)
        except (TypeError, UnicodeEncodeError) as error:
            raise InvalidInput("the text is not valid Unicode: it holds half of a surrogate pair") from error
        return encoded

    def _fit(self, entry: tokenizers.Encoding, room: int, truncate: bool, what: str) -> None:
        if len(entry.ids) > room:
            if not truncate:
                raise self._too_long(len(entry.ids) + self.max_length - room, what)
            entry.truncate(room)

    def _too_long(self, tokens: int, what: str) -> ContextLengthExceeded:
        return ContextLengthExceeded(
            f"{what} has {tokens} tokens, but this model reads at most {self.max_length}",
            "shorten it, or ask for truncation",
            param="input",
        )


def _tokens(encoding: tokenizers.Encoding) -> Tokens:
    return Tokens(encoding.ids, encoding.type_ids)
