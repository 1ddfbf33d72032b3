"""llguidance's matcher in the engine's terms; see `edgeai.engine.constraint` for what the engine expects."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgeai.errors import InvalidInput

if TYPE_CHECKING:
    from llguidance import LLMatcher

UNSPELLED = "it asks for text that this model's tokens cannot spell"
_PLACE = re.compile(r"^(?:at )?(\d+)\((\d+)\): ")
_DETAIL = re.compile(r"^error: (.*)$", re.MULTILINE)


class CompiledGrammar:
    """A matcher at the beginning of its grammar, to be copied; copying takes some microseconds."""

    def __init__(self, matcher: LLMatcher, eos: Sequence[int], vocab_size: int, param: str) -> None:
        self._matcher = matcher
        self._eos = eos
        self._vocab_size = vocab_size
        self._param = param

    def start(self) -> GrammarConstraint:
        """A constraint at the beginning."""
        return GrammarConstraint(self._matcher.deep_copy(), self._eos, self._vocab_size, self._param)


class GrammarConstraint:
    """How far one text has come in its grammar."""

    def __init__(self, matcher: LLMatcher, eos: Sequence[int], vocab_size: int, param: str) -> None:
        self._matcher = matcher
        self._eos = eos
        self._vocab_size = vocab_size
        self._param = param

    def forced(self, most: int) -> list[int]:
        """Tokens of the only way to go on, and the end token where the text is then complete."""
        if self._matcher.is_stopped():
            return []  # the end token comes next, and a draft of it would be verified for nothing
        tokens = self._matcher.compute_ff_tokens()[:most]
        if not tokens or len(tokens) == most:
            return tokens
        self._matcher.consume_tokens(tokens)
        ended = self._matcher.is_stopped()
        self._matcher.rollback(len(tokens))
        return [*tokens, self._eos[0]] if ended else tokens

    def fitting(self, draft: Sequence[int]) -> int:
        """How many of the draft's tokens the grammar takes; none behind an end token."""
        ends = [at + 1 for at, token in enumerate(draft) if token in self._eos]
        tokens = list(draft[: min(ends)] if ends else draft)
        return self._matcher.validate_tokens(tokens) if tokens else 0

    def masks(self, draft: Sequence[int]) -> list[NDArray[np.bool_]]:
        """What may come next, and what after each token of a draft that fits. Raises `InvalidInput` as `_mask` does."""
        masks = [self._mask()]
        text = [token for token in draft if token not in self._eos]
        for token in text:
            self._matcher.consume_token(token)
            masks.append(self._mask())
        if text:
            self._matcher.rollback(len(text))
        return masks + masks[-1:] * (len(draft) - len(text))  # nothing follows an end, and it cannot be rolled back

    def commit(self, token: int) -> None:
        """Go on by a token. One that goes beyond the limits shows at the next mask."""
        self._matcher.consume_token(token)

    def _mask(self) -> NDArray[np.bool_]:
        """Raises `InvalidInput` when the grammar has become too much work, or wants what no token spells."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        if self._matcher.is_error():
            raise InvalidInput(f"the grammar could not be followed: {problem(self._matcher)}", param=self._param)
        mask = np.unpackbits(bits, count=self._vocab_size, bitorder="little").view(np.bool_)
        if not mask.any():
            raise InvalidInput(f"the grammar could not be followed: {UNSPELLED}", param=self._param)
        return mask


def problem(matcher: LLMatcher) -> str:
    """What is wrong with a matcher in error, on one line, without the excerpts of llguidance's message."""
    text = matcher.get_error().strip()
    if text.startswith("NoExtension"):
        return UNSPELLED
    line = _PLACE.sub(r"line \1, column \2: ", text.partition("\n")[0])
    detail = _DETAIL.search(text)
    return f"{line} {detail[1]}" if detail else line
