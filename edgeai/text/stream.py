"""Text out of a stream of tokens: bytes that may end inside a character, and strings that end a reply."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from edgeai.errors import InvalidInput
from edgeai.text.tokenizer import Tokenizer


class Detokenizer:
    """Text of one sequence, token by token: the pieces add up to `Tokenizer.decode` of all ids, at constant cost each.

    Bytes of a character that is not complete are held back until it is, or until `finish`.
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_control: bool = True, shown: frozenset[int] = frozenset()) -> None:
        """Control tokens are left out, but for those `shown`."""
        self._tokenizer = tokenizer
        self._hidden = tokenizer.control_tokens - shown if skip_control else frozenset()
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        """The text that this token completes, often empty for a part of a character."""
        if token_id in self._hidden:
            return ""
        return self._decoder.decode(self._tokenizer.sampled_bytes(token_id))

    def finish(self) -> str:
        """What is still held back, as U+FFFD."""
        return self._decoder.decode(b"", final=True)


class StopStrings:
    """Cuts a stream of text before the first stop string in it.

    First is the one that ends first, and of those that end together the longest, so that the result does not depend
    on how the text is cut into pieces. Only text that may yet become a stop string is held back.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        if not all(stops):
            raise InvalidInput("a stop string must not be empty", param="stop")
        self._stops = tuple(dict.fromkeys(stops))
        self._held = ""
        self.matched: str | None = None  # the stop string that was found

    def push(self, text: str) -> tuple[str, bool]:
        """Text that can be shown now, and whether a stop string was found; nothing is shown after that."""
        if self.matched is not None:
            return "", True
        text = self._held + text
        found = self._find(text)
        if found is not None:
            start, self.matched = found
            self._held = ""
            return text[:start], True
        cut = len(text) - self._possible(text)
        self._held = text[cut:]
        return text[:cut], False

    def finish(self) -> str:
        """The text that was held back and now cannot become a stop string any more."""
        held, self._held = self._held, ""
        return held

    def _find(self, text: str) -> tuple[int, str] | None:
        found = [(text.find(stop), stop) for stop in self._stops]
        ends = [(start + len(stop), start, stop) for start, stop in found if start >= 0]
        return min(ends)[1:] if ends else None

    def _possible(self, text: str) -> int:
        """Length of the longest end of `text` that is the beginning of a stop string."""
        longest = min(len(text), max((len(stop) for stop in self._stops), default=1) - 1)
        for length in range(longest, 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stops):
                return length
        return 0
