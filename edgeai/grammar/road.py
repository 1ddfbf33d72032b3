"""How a text keeps room for its end: the known way to it, checked at each token when the tokens left become few."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgeai.grammar.ending import LONGEST, End, EndFinder

if TYPE_CHECKING:
    from llguidance import LLMatcher

CLOSE = 96  # tokens to spare, from which on every token is checked; a token seldom makes the end that much farther
STRIDE = 8  # with more to spare, this share of them may be said before the next check
PATIENCE = 2.0  # seconds of processor time for all looks of a text; grammars that need more are rare, or hostile


class Road:
    """The way to the end of one text, whose matcher this is. It does not change the matcher but for a moment."""

    def __init__(self, matcher: LLMatcher, ends: EndFinder) -> None:
        self._matcher = matcher
        self._ends = ends
        self._way: End | None = None  # good when last checked, and most often still
        self._committed = 0
        self._ahead: tuple[int, End] | None = None  # the way behind so many tokens
        self._check_at: int | None = None  # as many tokens left
        self._spent = 0.0  # seconds
        self._lost = False  # whether nothing is checked any more

    def can_end(self, said: Sequence[int], left: int) -> bool:
        """Whether behind `said` at most `left` more tokens bring the text to its end."""
        if said[-1] in self._ends.closers.eos:
            return left >= 0
        if self._lost or (self._check_at is not None and left > self._check_at):
            return True
        way = self._find(said, left)
        if way is None or way.cost > left:
            return False
        self._ahead = self._committed + len(said), way
        self._check_at = left - max(1, (left - way.cost - CLOSE) // STRIDE)
        return True

    def way_out(self, said: Sequence[int], left: int) -> int | None:
        """The next token of a way to the end in at most `left` tokens, which is taken to be said if no other can be.

        Where none is found, nothing is checked any more: the text will be cut off anyway.
        """
        way = self._find(said, left, thorough=True)
        if way is None or way.cost > left:
            self._lost = True
            return None
        token = way.tokens[0]
        self._ahead = self._committed + len(said) + 1, self._shortened(way, token)
        return token

    def commit(self, token: int) -> None:
        """A token was said."""
        self._committed += 1
        if self._ahead is not None and self._ahead[0] <= self._committed:
            self._way, self._ahead = self._ahead[1], None
        elif self._way is not None:
            self._way = self._shortened(self._way, token)

    def _find(self, said: Sequence[int], left: int, *, thorough: bool = False) -> End | None:
        """A way behind `said`. One of more than `left` tokens is the shortest only where the search was `thorough`."""
        way = self._way
        for token in said:
            way = None if way is None else self._shortened(way, token)
        probe = self._matcher.deep_copy()
        probe.consume_tokens(list(said))
        if probe.is_stopped() and not probe.is_error():
            return End(self._ends.closers.eos[:1], over=True)
        if way is not None and way.cost <= left and probe.validate_tokens(list(way.tokens)) == len(way.tokens):
            return way
        started = time.thread_time()
        most = max(left, LONGEST)
        found = self._ends.find(probe, most, way) or self._ends.search(probe, most)
        if thorough and found is not None and found.cost > left:
            found = self._ends.search(probe, left)
        self._spent += time.thread_time() - started
        self._lost = self._lost or self._spent > PATIENCE
        return found

    def _shortened(self, way: End, token: int) -> End:
        return End(self._ends.closers.behind(token, way.tokens), way.over)
