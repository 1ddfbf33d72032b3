"""How many tokens of a prompt one step computes: as many as keep the decoding rows' latency.

A chunk's time is taken to be ``a + b * tokens + c * tokens * context``, fitted to the chunks that were run, with a
margin for how far they were off. The time that a step has left for a chunk is known when it comes to it: the decoding
rows of the same step have been run by then.
"""

from __future__ import annotations

from collections import deque

from edgeai.engine.config import EngineSettings, ModelShape
from edgeai.engine.cost_model import LinearCost
from edgeai.engine.scores import largest_chunk

MIN_CHUNK = 16  # tokens; below this a chunk costs about as much as a single token
HEADROOM = 0.9  # of the bound is planned for; the rest is for what nobody foresees
LEARNING = 4  # chunks whose errors only tell how little was known
RECENT = 64  # chunks whose errors make the margin
WORST = 0.96  # the margin covers so many of them
LARGEST_ERROR = 4.0  # of a single chunk
GROWTH = 2  # times the largest chunk that was ever measured is as far as the fit is trusted
TAIL_MEMORY = 0.8
CONSTANT_SCALE = 4.0  # large: as long as little is known, a chunk costs what its tokens cost


class ChunkSizer:
    """Chunks of at most `settings.chunk_tokens`; while others decode, what fits into `settings.latency_seconds`."""

    def __init__(self, settings: EngineSettings, shape: ModelShape, capacity: int) -> None:
        """`capacity` is the positions of a KV row."""
        self.most = max(MIN_CHUNK, largest_chunk(settings, shape, capacity))
        self.cost = LinearCost([CONSTANT_SCALE, settings.chunk_tokens, settings.chunk_tokens * capacity])
        self._bound = settings.latency_seconds
        self._errors: deque[float] = deque(maxlen=RECENT)  # measured by expected times
        self._largest = 0  # tokens
        self._tail = 0.0  # seconds of a step after its chunk, lately

    def seconds(self, tokens: int, start: int) -> float:
        """What a chunk at positions from `start` on is expected to take; 0 before the first was measured."""
        return self.cost.seconds(_features(tokens, start))

    def prompt_seconds(self, tokens: int, start: int) -> float:
        """What reading `tokens` of a prompt from position `start` on takes when nobody decodes meanwhile."""
        full, rest = divmod(tokens, self.most)
        middle = start + max(0, tokens - self.most) // 2  # cost is linear in the context: all are like the middle one
        return full * self.seconds(self.most, middle) + (self.seconds(rest, start + tokens - rest) if rest else 0.0)

    def measured(self, tokens: int, start: int, seconds: float) -> None:
        """A chunk of `tokens` behind `start` others took so long."""
        if tokens < MIN_CHUNK:
            return
        expected = self.seconds(tokens, start)
        if expected > 0 and self.cost.measurements >= LEARNING and tokens <= GROWTH * self._largest:
            self._errors.append(min(seconds / expected, LARGEST_ERROR))
        self._largest = max(self._largest, tokens)
        self.cost.measured(_features(tokens, start), seconds)

    def ended(self, seconds: float) -> None:
        """So much of a step came after its chunk: sampling, and keeping the books."""
        self._tail += (seconds - self._tail) * (1 - TAIL_MEMORY)

    def limit(self, start: int, spent: float, *, others_decode: bool) -> int:
        """The most tokens of a chunk at `start`, in a step that has lasted `spent` seconds already.

        Never less than `MIN_CHUNK`: a prompt that is not read at all would wait for ever.
        """
        if not others_decode:
            return self.most
        left = (self._bound * HEADROOM - spent - self._tail) / self.margin
        tokens = min(self.most, GROWTH * self._largest // MIN_CHUNK * MIN_CHUNK)
        while tokens > MIN_CHUNK and self.seconds(tokens, start) > left:
            tokens = (tokens - 1) // MIN_CHUNK * MIN_CHUNK
        return max(MIN_CHUNK, tokens)

    def left_for_drafts(self, start: int) -> float:
        """Seconds that the decoding rows of a step may take, drafts and all, beside the least chunk at `start`."""
        least = self.seconds(MIN_CHUNK, start) * self.margin
        return self._bound * HEADROOM - self._tail - least

    @property
    def margin(self) -> float:
        """How many times the expected time a chunk may take, in all but a few cases."""
        if not self._errors:
            return 1.0
        return max(1.0, sorted(self._errors)[int(WORST * len(self._errors))])


def _features(tokens: int, start: int) -> tuple[float, float, float]:
    return 1.0, tokens, tokens * (start + tokens / 2)
