"""Ways to the end of a text: tokens that complete what has been begun, few of them.

llguidance says which tokens may come next, not how far the end is. So the end is looked for by writing on in a copy of
the matcher: what is forced first, then what closes most (braces, brackets, a quote), then the shortest values, and
where none of those may come, one of the longest tokens. That finds the end of most texts at once. Where it goes astray,
as in a recursive schema whose first alternative holds itself, `EndFinder.search` tries other choices; what turned out
to be shorter is preferred from then on, for all texts of the grammar.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgeai.grammar.spelling import Spelling

if TYPE_CHECKING:
    from llguidance import LLMatcher

Mask = NDArray[np.bool_]  # [vocab_size]: the tokens that may come next

LONGEST = 512  # tokens after which an end is taken to be out of reach, unless more are asked for
EFFORT = 10_000  # tokens that one search may write in all
REACHES = (64, 256)  # tokens that a search writes before it tries something else; and at last as many as are asked for
ALTERNATIVES = 16  # that are tried at one place
CHOICES = 2  # other ones than usual that are tried together
SECONDS = 0.5  # of processor time that one look for an end may take, whatever the grammar
_CLOSING = re.compile(rb'["\]}]+')
_OPENING = re.compile(rb'"[^",:\]}\s].*')  # where it may come, a quote begins a string
_VALUES = [b"[]", b"{}", *(str(digit).encode() for digit in range(10)), b"null", b"true", b"false"]
_BEGINNINGS = [b'{"', b"{", b"["]
_SPACED = [b" " + text for text in (b'""', *_VALUES)]
_FOLLOWING = [b",", *_VALUES, *_SPACED, b' "', b'"', b" ", *_BEGINNINGS]
_ADDRESS = [b"@", b":", b".", b"a", b"/", b"-"]  # what makes the next part of an address begin, or is one


class Closers:
    """The tokens of a vocabulary in the order in which they are tried."""

    def __init__(self, spelling: Spelling, eos: Sequence[int]) -> None:
        ids = spelling.ids
        self.size = len(spelling.tokens)
        self.eos = tuple(eos)
        self.spelling = spelling
        self._newline, self._space, *self._letters = (ids.get(text) for text in (b"\n", b" ", b"a", b"z"))
        self._weights = np.array([len(text.strip()) for text in spelling.tokens])
        self._weights[list(spelling.special)] = 0
        self._beginnings = np.array([(text.lstrip() or text or bytes(1))[0] for text in spelling.tokens])
        closing = sorted(filter(_CLOSING.fullmatch, ids), key=lambda text: -len(text))
        quotes = [text for text in closing if text.startswith(b'"') and not text.startswith(b'""')]
        first = [*(text for text in closing if text[:1] != b'"'), *(text for text in closing if text[:2] == b'""')]
        self._quotes = frozenset(ids[text] for text in quotes)
        self._begins = frozenset(ids[text] for text in _BEGINNINGS if text in ids)
        self._openings = self._known(text for text in ids if _OPENING.fullmatch(text))
        self._structure = self._known([*first, *quotes, *_FOLLOWING])
        self._value = self._known([*first, *_FOLLOWING])
        self._address = self._known([*quotes, *_ADDRESS])
        self._text = self._known([*quotes, b"-"])

    def _known(self, texts: Iterable[bytes]) -> NDArray[np.intp]:
        """The tokens of those texts that are tokens."""
        return np.array([self.spelling.ids[text] for text in texts if text in self.spelling.ids], np.intp)

    def choose(self, mask: Mask, repeated: int = 0, deeper: int = 0) -> int:
        """The best of the tokens that may come.

        Another one where it led back to the same place, `repeated` times at once; and where it may begin what goes on
        for ever, for each of the `deeper` times that it did so inside of what it had begun.
        """
        content = all(self._allows(mask, letter) for letter in self._letters)  # of a string, or free text
        order = self._order(mask, content=content)
        fitting = order[mask[order]]
        best = int(fitting[0]) if len(fitting) else self._longest(mask)
        if content:
            return self._longest(mask) if repeated and best not in self._quotes else best
        times = repeated if len(fitting) and best not in self._begins else deeper
        if not times or best in self._quotes:
            return best
        options = [best, *(token for token in self.alternatives(mask) if token != best)]
        return options[times % len(options)]

    def _order(self, mask: Mask, *, content: bool) -> NDArray[np.intp]:
        if content:
            return self._text if self._allows(mask, self._space) else self._address
        return self._value if mask[self._openings].any() else self._structure

    def _longest(self, mask: Mask) -> int:
        allowed = np.flatnonzero(mask)
        return int(allowed[self._weights[allowed].argmax()])

    def alternatives(self, mask: Mask) -> list[int]:
        """A few tokens that may come and differ in how they begin, the longest of each kind; numbers last."""
        allowed = np.flatnonzero(mask)
        allowed = allowed[np.argsort(-self._weights[allowed], kind="stable")]
        beginnings, first = np.unique(self._beginnings[allowed], return_index=True)
        is_digit = (beginnings >= ord("0")) & (beginnings <= ord("9"))
        return [int(token) for token in allowed[first[np.argsort(is_digit, kind="stable")][:ALTERNATIVES]]]

    @staticmethod
    def _allows(mask: Mask, token: int | None) -> bool:
        return token is not None and bool(mask[token])

    def is_free_text(self, mask: Mask) -> bool:
        """Whether anything may come: JSON has no line ends in its strings, nor elsewhere as it is written here."""
        return self._allows(mask, self._newline)

    def behind(self, token: int, tokens: tuple[int, ...]) -> tuple[int, ...]:
        """What is left of `tokens` once `token` has been said; all of them if their text does not begin like it."""
        if not tokens or token == tokens[0]:
            return tokens[1:]
        said, text = self.spelling.tokens[token], b""
        for count, each in enumerate(tokens, 1):
            if each in self.spelling.special:
                break
            text += self.spelling.tokens[each]
            if len(text) >= len(said):
                rest = self.spelling.cut(text[len(said) :])
                fits = text == said + self.spelling.text(rest)
                return (*rest, *tokens[count:]) if fits else tokens
        return tokens


@dataclass(frozen=True, slots=True)
class End:
    """Tokens that complete a text, an end token behind them; where the text is `over` before, that need not be said."""

    tokens: tuple[int, ...]
    over: bool

    @property
    def cost(self) -> int:
        """How many tokens have to be said."""
        return len(self.tokens) - self.over


@dataclass(frozen=True, slots=True)
class _Place:
    """Where there was a choice on the way to an end: what had been written, and the mask of what could have come."""

    written: tuple[int, ...]
    bits: bytes


class _Depths:
    """At which depths of arrays and objects there was each kind of place on a way."""

    def __init__(self, spelling: Spelling) -> None:
        self._spelling = spelling
        self._read = 0  # tokens
        self._depth = 0
        self._last: dict[int, tuple[int, int]] = {}  # its depth, and how often that was deeper than before

    def visit(self, key: int, written: Sequence[int]) -> int:
        """How often a place of this kind was met deeper than the last one of its kind."""
        text = self._spelling.text(written[self._read :])
        self._read = len(written)
        self._depth += text.count(b"{") + text.count(b"[") - text.count(b"}") - text.count(b"]")
        last, deeper = self._last.get(key, (self._depth, 0))
        deeper += self._depth > last
        self._last[key] = self._depth, deeper
        return deeper


@dataclass(slots=True)
class EndFinder:
    """Finds ends of one grammar's texts. `markers` end parts of them that are free text, such as thoughts."""

    closers: Closers
    markers: Sequence[list[int]] = ()
    preferred: dict[int, int] = field(default_factory=dict)  # by the hash of a mask: what led to a shorter end

    def find(self, matcher: LLMatcher, most: int = LONGEST, left: End | None = None) -> End | None:
        """An end, by the choices that are known to be good; None if there is none in `most` tokens.

        A way that was `left` is gone on where it is met again.
        """
        return self._follow(matcher, (), most, self.preferred, [], time.thread_time() + SECONDS, left)

    def search(self, matcher: LLMatcher, most: int) -> End | None:
        """An end in at most `most` tokens, where necessary by other choices than the known ones."""
        until = time.thread_time() + SECONDS
        for reach in (*REACHES, max(most, LONGEST)):
            end = self._search(matcher, most, reach, until)
            if end is not None:
                return end
        return None

    def _search(self, matcher: LLMatcher, most: int, reach: int, until: float) -> End | None:
        """Try other choices one by one, then two at a time; a choice holds wherever there is the same one again."""
        places: list[_Place] = []
        best = self._follow(matcher, (), reach, self.preferred, places, until)
        waiting: deque[tuple[list[_Place], dict[int, int]]] = deque([(places, {})])
        effort = EFFORT
        while waiting and effort > 0 and (best is None or best.cost > most):
            places, choices = waiting.popleft()
            for at, token in self._untried(places, choices):
                place, tried = places[at], places[: at + 1]
                chosen = {**choices, hash(place.bits): token}
                limit = reach if best is None else best.cost - 1
                end = self._follow(matcher, (*place.written, token), limit, {**self.preferred, **chosen}, tried, until)
                effort -= len(tried[-1].written) - len(place.written) + 1
                if end is not None:
                    best = end
                    self.preferred.update(chosen)
                if len(chosen) < CHOICES:
                    waiting.append((tried, chosen))
                if effort <= 0 or (best is not None and best.cost <= most):
                    break
        return best if best is not None and best.cost <= most else None

    def _untried(self, places: Sequence[_Place], choices: Mapping[int, int]) -> Iterator[tuple[int, int]]:
        """Where another token may be chosen, and which; each kind of place once."""
        seen = set(choices)
        for at, place in enumerate(places):
            if hash(place.bits) not in seen:
                seen.add(hash(place.bits))
                mask = allowed_tokens(place.bits, self.closers.size)
                yield from ((at, token) for token in self.closers.alternatives(mask))

    def _follow(
        self,
        start: LLMatcher,
        begun: Sequence[int],
        most: int,
        preferred: Mapping[int, int],
        places: list[_Place],
        until: float,
        left: End | None = None,
    ) -> End | None:
        """Write on behind `begun` until the end, for `most` tokens or `until` then; `places` are added to."""
        matcher = start.deep_copy()
        written = list(begun)
        matcher.consume_tokens(written)
        before, repeated, depths = b"", 0, _Depths(self.closers.spelling)
        while not matcher.is_stopped() and len(written) <= most and time.thread_time() < until:
            more = matcher.compute_ff_tokens()
            if not more:
                if matcher.is_accepting():
                    return End((*written, self.closers.eos[0]), over=False) if len(written) < most else None
                bits = matcher.compute_bitmask()
                places.append(_Place(tuple(written), bits))
                repeated = repeated + 1 if bits == before else 0
                before = bits
                more = self._next(matcher, bits, preferred, repeated, depths.visit(hash(bits), written))
            elif left is not None:
                known = [*more, *_after(more, left.tokens)]
                if len(known) > len(more) and matcher.validate_tokens(known) == len(known):
                    return End((*written, *known), left.over)
            matcher.consume_tokens(more)
            written += more
        if matcher.is_error() or not matcher.is_stopped() or len(written) > most:
            return None
        return End((*written, self.closers.eos[0]), over=True)

    def _next(
        self, matcher: LLMatcher, bits: bytes, preferred: Mapping[int, int], repeated: int, deeper: int
    ) -> list[int]:
        mask = allowed_tokens(bits, self.closers.size)
        for marker in self.markers:
            fits = mask[marker[0]] and (marker[0] in self.closers.spelling.special or self.closers.is_free_text(mask))
            if fits and matcher.validate_tokens(marker) == len(marker):
                return marker
        token = preferred.get(hash(bits))
        return [self.closers.choose(mask, repeated, deeper) if token is None else token]


def _after(part: Sequence[int], tokens: tuple[int, ...]) -> tuple[int, ...]:
    """What follows `part` in `tokens`; nothing if it is not in there."""
    size = len(part)
    ends = (at + size for at in range(len(tokens) - size) if tokens[at : at + size] == tuple(part))
    return tokens[next(ends, len(tokens)) :]


def allowed_tokens(bits: bytes, size: int) -> Mask:
    """The mask that llguidance gave, one bit for each of `size` tokens, as an array."""
    return np.unpackbits(np.frombuffer(bits, np.uint8), count=size, bitorder="little").view(np.bool_)
