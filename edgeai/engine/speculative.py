"""Speculative decoding without a second model: drafts looked up in the text so far, verified in one run.

Answers that summarise, edit or quote repeat pieces of their prompt. `PromptLookup` (prompt lookup decoding, Saxena
2023) finds where the newest tokens occurred before and proposes what followed there. A run over the newest token and
its draft gives the logits of every position, and each position is sampled as it would have been alone, so the output is
the same with and without drafts; a wrong draft costs only the positions it took.

Under a grammar there are drafts of another kind: what can only go on in one way. Others are cut where they leave it.

How long drafts are follows from what runs were measured to cost and how often drafts were right (`DraftPlanner`): where
they do not pay, there are none. While somebody's prompt is read, they are no longer than the bound on latency allows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from edgeai.engine.constraint import Constraint

LONGEST = 4  # tokens of the longest n-gram that is looked up
SHORTEST = 2
PRIOR_RIGHT, PRIOR_COUNT = 2.0, 4.0  # a new request's drafts count as half right, on the weight of four tokens
MEMORY = 0.9  # how much of the past counts after each verified draft
PROBE_EVERY = 32  # refused drafts after which a short one is tried again: a text may start to repeat at any time
PROBE_TOKENS = 2
FORCED_ACCEPTANCE = 0.95  # of tokens that a grammar forces: models rarely cut the same text into others


@dataclass(slots=True)
class PromptLookup:
    """Where each n-gram of a growing text ended last. Feeding it costs a few dictionary writes for each new token."""

    _ends: dict[tuple[int, ...], int] = field(default_factory=dict)
    _read: int = 0

    def draft(self, tokens: Sequence[int], most: int) -> list[int]:
        """Up to `most` tokens that followed the latest earlier occurrence of the longest n-gram that `tokens` end in.

        `tokens` only ever grows between calls. The ends indexed are those before the text's own end.
        """
        self._index(tokens)
        for size in range(min(LONGEST, len(tokens) - 1), SHORTEST - 1, -1):
            end = self._ends.get(tuple(tokens[-size:]))
            if end is not None:
                return _followers(tokens, end, most)
        return []

    def _index(self, tokens: Sequence[int]) -> None:
        for end in range(self._read + 1, len(tokens)):
            for size in range(SHORTEST, min(LONGEST, end) + 1):
                self._ends[tuple(tokens[end - size : end])] = end
        self._read = max(self._read, len(tokens) - 1)


def _followers(tokens: Sequence[int], end: int, most: int) -> list[int]:
    """`most` tokens from position `end` on; where the text ends, it is taken to repeat from there."""
    draft = list(tokens[end : end + most])
    while len(draft) < most:
        draft.append(draft[end + len(draft) - len(tokens)])
    return draft


@dataclass(slots=True)
class Drafter:
    """One request's lookup, and how its drafts have fared."""

    lookup: PromptLookup = field(default_factory=PromptLookup)
    right: float = PRIOR_RIGHT
    tried: float = PRIOR_COUNT
    refused: int = 0  # drafts in a row that were looked up, but not worth a run

    @property
    def acceptance(self) -> float:
        """Chance that a draft's next token is right, given that those before it were."""
        return self.right / self.tried

    def verified(self, drafted: int, accepted: int) -> None:
        """A draft of `drafted` tokens was run; the first `accepted` were right. What follows a miss says nothing."""
        self.right = MEMORY * self.right + accepted
        self.tried = MEMORY * self.tried + accepted + (1 if accepted < drafted else 0)


@dataclass(slots=True)
class RunCosts:
    """Seconds of a run as a line in its number of positions, fitted to the runs of the recent past."""

    _weight: float = 0.0
    _n: float = 0.0
    _nn: float = 0.0
    _s: float = 0.0
    _ns: float = 0.0

    def measured(self, positions: int, seconds: float) -> None:
        for name, value in (
            ("_weight", 1.0),
            ("_n", positions),
            ("_nn", positions * positions),
            ("_s", seconds),
            ("_ns", positions * seconds),
        ):
            setattr(self, name, 0.98 * getattr(self, name) + value)

    def seconds(self, positions: int) -> float:
        """What a run of `positions` is expected to take."""
        fixed, slope = self._fit()
        return fixed + slope * positions

    def _fit(self) -> tuple[float, float]:
        """Until there is a line, a position is taken to cost an eighth of the fixed part: of a second, or of what the
        runs took so far.
        """
        spread = self._weight * self._nn - self._n * self._n
        if self._weight >= 4 and spread >= 1e-6 * self._nn * self._weight:
            slope = (self._weight * self._ns - self._n * self._s) / spread
            fixed = (self._s - slope * self._n) / self._weight
            if fixed > 0 and slope > 0:
                return fixed, slope
        fixed = self._s / (self._weight + self._n / 8) if self._weight else 1.0
        return fixed, fixed / 8


@dataclass(frozen=True, slots=True)
class Draft:
    """Tokens that may follow, and the chance that each is right if those before it were."""

    tokens: list[int]
    acceptance: float
    forced: bool = False  # by a grammar: says nothing about the drafter

    def cut(self, most: int) -> Draft:
        """No more than `most` of the tokens."""
        return self if len(self.tokens) <= most else replace(self, tokens=self.tokens[:most])


@dataclass(frozen=True, slots=True)
class DraftRow:
    """What a row's draft is made from: its text so far, and the most tokens that may follow the next one."""

    tokens: Sequence[int]
    drafter: Drafter
    limit: int
    constraint: Constraint | None = None

    def draft(self, most: int) -> Draft:
        most = max(0, min(most, self.limit))
        if self.constraint is not None:
            forced = self.constraint.forced(most) if most else []
            if forced:
                return Draft(forced, FORCED_ACCEPTANCE, forced=True)
        tokens = self.drafter.lookup.draft(self.tokens, most)
        if self.constraint is not None:
            tokens = tokens[: self.constraint.fitting(tokens)]
        return Draft(tokens, self.drafter.acceptance)


class DraftPlanner:
    """Chooses how many tokens of each row's draft are worth verifying; never more than `most`."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.costs = RunCosts()

    def plan(self, rows: Sequence[DraftRow], within: float = math.inf) -> list[Draft]:
        """A draft for each row, perhaps empty: none that lets the run last longer than `within` seconds."""
        most = self._longest(len(rows), within)
        drafts = [row.draft(most) for row in rows]
        cap = self.choose(drafts) or self._probe(drafts, [row.drafter for row in rows])
        return [draft.cut(cap) for draft in drafts]

    def _longest(self, rows: int, within: float) -> int:
        """The longest drafts whose run is expected to be over in time."""
        lengths = range(self.most, 0, -1)
        return next((length for length in lengths if self.costs.seconds(rows * (1 + length)) <= within), 0)

    def choose(self, drafts: Sequence[Draft]) -> int:
        """The draft length, of 0 to `most`, that gives the most tokens for each second.

        Rows are padded to the longest, so that one cap serves all: a run of r rows takes ``seconds(r * (1 + cap))`` and
        is expected to give ``1 + a + ... + a ** min(cap, len(draft))`` tokens a row, a being its acceptance.
        """
        longest = max((len(draft.tokens) for draft in drafts), default=0)
        return max(range(longest + 1), key=lambda cap: self._speed(cap, drafts))

    def _speed(self, cap: int, drafts: Sequence[Draft]) -> float:
        expected = sum(geometric_sum(draft.acceptance, min(cap, len(draft.tokens))) for draft in drafts)
        return expected / self.costs.seconds(len(drafts) * (1 + cap))

    def _probe(self, drafts: Sequence[Draft], drafters: Sequence[Drafter]) -> int:
        """Drafts do not pay now. Count that, and every so often try a short one all the same."""
        probing = False
        for draft, drafter in zip(drafts, drafters, strict=True):
            if draft.tokens and not draft.forced:
                drafter.refused += 1
            if drafter.refused >= PROBE_EVERY:
                drafter.refused, probing = 0, True
        return PROBE_TOKENS if probing else 0


def geometric_sum(ratio: float, terms: int) -> float:
    """``1 + ratio + ... + ratio ** terms``."""
    return terms + 1 if ratio == 1 else (1 - ratio ** (terms + 1)) / (1 - ratio)
