"""How many tokens of a prompt one step computes: as many as keep the decoding rows' latency."""

from __future__ import annotations

from edgeai.engine.config import EngineSettings, ModelShape
from edgeai.engine.scores import largest_chunk

MIN_CHUNK = 16  # tokens; below this a chunk costs about as much as a single token


class ChunkSizer:
    """Chunks of at most `settings.chunk_tokens`, and while others decode of at most `settings.chunk_seconds`."""

    def __init__(self, settings: EngineSettings, shape: ModelShape, capacity: int) -> None:
        """`capacity` is the positions of a KV row."""
        self.most = max(MIN_CHUNK, largest_chunk(settings, shape, capacity))
        self.speed: float | None = None  # tokens per second, measured
        self._seconds = settings.chunk_seconds

    def measured(self, tokens: int, seconds: float) -> None:
        """Take note of how long a chunk took; recent chunks count most, as speed falls with the context's length."""
        if tokens >= MIN_CHUNK:
            speed = tokens / seconds
            self.speed = speed if self.speed is None else (self.speed + speed) / 2

    def limit(self, *, others_decode: bool) -> int:
        """The most tokens of the next chunk."""
        if not others_decode or self.speed is None:
            return self.most
        fitting = int(self.speed * self._seconds) // MIN_CHUNK * MIN_CHUNK
        return min(self.most, max(MIN_CHUNK, fitting))
