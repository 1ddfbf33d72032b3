"""The bytes of a vocabulary's tokens, and text cut into tokens without the tokenizer's own rules."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


class Spelling:
    """What tokens spell; those that are `special` spell nothing."""

    def __init__(self, tokens: Sequence[bytes], special: Iterable[int]) -> None:
        self.tokens = tokens
        self.special = frozenset(special)
        self.ids = {text: token for token, text in enumerate(tokens) if text and token not in self.special}
        self._longest = max(map(len, self.ids), default=0)

    def text(self, ids: Iterable[int]) -> bytes:
        return b"".join(self.tokens[token] for token in ids)

    def cut(self, text: bytes) -> list[int]:
        """The longest tokens from the left on, as far as there are any."""
        ids: list[int] = []
        at = 0
        while at < len(text):
            sizes = range(min(self._longest, len(text) - at), 0, -1)
            token = next((self.ids[text[at : at + size]] for size in sizes if text[at : at + size] in self.ids), None)
            if token is None:
                break
            ids.append(token)
            at += len(self.tokens[token])
        return ids
