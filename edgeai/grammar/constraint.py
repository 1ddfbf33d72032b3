"""llguidance's matcher in the engine's terms; see `edgeai.engine.constraint` for what the engine expects."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgeai.errors import InvalidInput
from edgeai.grammar.ending import LONGEST, EndFinder, Mask, allowed_tokens
from edgeai.grammar.road import Road

if TYPE_CHECKING:
    from llguidance import LLMatcher

UNSPELLED = "it asks for text that this model's tokens cannot spell"
_PLACE = re.compile(r"^(?:at )?(\d+)\((\d+)\): ")
_DETAIL = re.compile(r"^error: (.*)$", re.MULTILINE)


class CompiledGrammar:
    """A matcher at the beginning of its grammar, to be copied; copying takes some microseconds."""

    def __init__(self, matcher: LLMatcher, ends: EndFinder, param: str) -> None:
        self._matcher = matcher
        self._ends = ends
        self._param = param

    def start(self) -> GrammarConstraint:
        """A constraint at the beginning."""
        return GrammarConstraint(self._matcher.deep_copy(), self._ends, self._param)

    def shortest(self) -> int | None:
        """Tokens of the shortest text that was found; None if no end was."""
        way = self._ends.find(self._matcher) or self._ends.search(self._matcher, LONGEST)
        return None if way is None else way.cost


class GrammarConstraint:
    """How far one text has come in its grammar."""

    def __init__(self, matcher: LLMatcher, ends: EndFinder, param: str) -> None:
        self._matcher = matcher
        self._eos = ends.closers.eos
        self._vocab_size = ends.closers.size
        self._param = param
        self._road = Road(matcher, ends)

    def forced(self, most: int) -> list[int]:
        """Tokens of the only way to go on."""
        return [] if self._matcher.is_stopped() else self._matcher.compute_ff_tokens()[:most]

    def fitting(self, draft: Sequence[int]) -> int:
        """How many of the draft's tokens the grammar takes; none behind an end token."""
        ends = [at + 1 for at, token in enumerate(draft) if token in self._eos]
        tokens = list(draft[: min(ends)] if ends else draft)
        return self._matcher.validate_tokens(tokens) if tokens else 0

    def masks(self, draft: Sequence[int]) -> list[Mask]:
        """What may come next, and what after each token of a draft that fits. Raises `InvalidInput` as `_mask` does."""
        masks = [self._mask()]
        text = [token for token in draft if token not in self._eos]
        for token in text:
            self._matcher.consume_token(token)
            masks.append(self._mask())
        if text:
            self._matcher.rollback(len(text))
        return masks + masks[-1:] * (len(draft) - len(text))  # nothing follows an end, and it cannot be rolled back

    def over(self, said: Sequence[int]) -> bool:
        """Whether the text is complete behind `said`, and only the end token could follow."""
        if not said:
            return self._matcher.is_stopped()
        self._matcher.consume_tokens(list(said))
        over = self._matcher.is_stopped()
        self._matcher.rollback(len(said))
        return over

    def can_end(self, said: Sequence[int], left: int) -> bool:
        """Whether behind `said` at most `left` more tokens bring the text to its end."""
        return self._road.can_end(said, left)

    def way_out(self, said: Sequence[int], left: int) -> int | None:
        """The next token of a way to the end in at most `left` tokens, if one is known."""
        return self._road.way_out(said, left)

    def commit(self, token: int) -> None:
        """Go on by a token. One that goes beyond the limits shows at the next mask."""
        self._matcher.consume_token(token)
        self._road.commit(token)

    def _mask(self) -> Mask:
        """Raises `InvalidInput` when the grammar has become too much work, or wants what no token spells."""
        bits = self._matcher.compute_bitmask()
        if self._matcher.is_error():
            raise InvalidInput(f"the grammar could not be followed: {problem(self._matcher)}", param=self._param)
        mask = allowed_tokens(bits, self._vocab_size)
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
