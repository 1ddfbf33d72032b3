"""Clients of a server whose memory is limited, which come again when they are told to."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from greedy_answers import Answer, ask

TEXT = (
    "river mountain lantern window quiet yellow engine paper winter garden bridge morning salt thunder copper "
    "bread harbour letter silver forest candle market shadow ladder orange train violin pocket island feather "
)
WORDS = TEXT.split()
ANSWER_TOKENS = 48


class Clients:
    """`refusals` counts answers with 503, by which clients are told to come again."""

    def __init__(self, base_url: str) -> None:
        self.base_url, self.refusals = base_url, 0

    def ask_all(self, prompts: Sequence[str]) -> list[Answer]:
        """All at once, each by a client of its own, which comes back as often as it is told to."""
        with ThreadPoolExecutor(len(prompts)) as clients:
            return list(clients.map(self._ask_until_answered, prompts))

    def _ask_until_answered(self, prompt: str) -> Answer:
        while (answer := self._ask(prompt)).status == 503:
            self.refusals += 1
            time.sleep(float(answer.retry_after or 1))
        return answer

    def _ask(self, prompt: str) -> Answer:
        return ask(self.base_url, prompt, max_tokens=ANSWER_TOKENS, alternatives=5, timeout=600)


def prompts(count: int, words: int, seed: int = 0) -> list[str]:
    """Different texts of so many words, no two with a common beginning."""
    chance = random.Random(seed)  # noqa: S311
    return [f"{number}. " + " ".join(chance.choices(WORDS, k=words)) for number in range(count)]
