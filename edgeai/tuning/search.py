"""The search: one knob after the other, each value beside the present one in rounds that take turns.

A knob gets its share of the time that is left, or what `LEAST_ROUNDS` rounds take while there is as much left.
Whatever kills, hangs or confuses a child puts that one value out of the race. At the end what was chosen stands against
the settings that there were before: single gains do not always add up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from edgeai.engine.config import EngineSettings
from edgeai.errors import TrialFailed
from edgeai.progress import Progress, silent
from edgeai.tuning.bench import Bench
from edgeai.tuning.decision import MARGIN, Round, best, compared, explain
from edgeai.tuning.knobs import KNOBS, MOST_PROMPT, Device, Fields, Knob, Workload, in_words
from edgeai.tuning.profile import Candidate, Choice, Figures, with_fields
from edgeai.tuning.workloads import Order

LEAST_ROUNDS, MOST_ROUNDS = 3, 9
SLICES = 150  # measurements that fit into the whole time, were there nothing else to do
SHORTEST, LONGEST = 0.05, 1.0  # seconds of one measurement
LEAST_PROMPT = 64  # tokens
OVERALL: tuple[Workload, ...] = ("decode", "batch", "prefill")
ROWS_LEAST_SPEED = 4.0  # tokens a second of each row; slower than that people wait for
HOPELESS = 0.7  # a value that is this much worse after `LEAST_ROUNDS` is not measured again
NO_TIME = "there was no time to measure other values; a longer --seconds gives it"


@dataclass
class Search:
    """Tunes one package. `run` raises `TrialFailed` when not even the settings to begin with work."""

    bench: Bench
    device: Device
    base: EngineSettings
    seconds: float
    knobs: Sequence[Knob] = KNOBS
    progress: Progress = silent
    clock: Callable[[], float] = time.monotonic
    _seed: int = 0
    _prompt_tokens: int = LEAST_PROMPT
    _cost: dict[Workload, float] = field(default_factory=dict)  # seconds of one measurement, all told

    def run(self) -> tuple[EngineSettings, tuple[Choice, ...]]:
        """The settings to use, and how each was chosen; the last choice is of all together."""
        deadline = self.clock() + self.seconds
        self._calibrate()
        settings, choices = self.base, []
        for number, knob in enumerate(self.knobs):
            self.progress(f"tune {knob.name}", number, len(self.knobs))
            left = deadline - self.clock()
            weights = 1 + sum(each.weight for each in self.knobs[number:])  # the end has a share as well
            choice = self._turn(knob, settings, left, left * knob.weight / weights)
            choices.append(choice)
            settings = with_fields(settings, choice.setting)
        self.progress("tune", len(self.knobs), len(self.knobs))
        return self._overall(settings, choices)

    def _calibrate(self) -> None:
        """What each workload costs, and how long a prompt may be."""
        speed = self._measure(self.base, "prefill").speed
        wanted = speed * self._slice
        while self._prompt_tokens < min(MOST_PROMPT, wanted):
            self._prompt_tokens *= 2
        for workload in dict.fromkeys(workload for knob in self.knobs for workload in (*knob.measures, *OVERALL)):
            self._measure(self.base, workload)

    def _turn(self, knob: Knob, settings: EngineSettings, left: float, share: float) -> Choice:
        """Try the values of one knob."""
        present, device = _fields_of(settings, knob.fields), replace(self.device, prompt_tokens=self._prompt_tokens)
        values = [present, *(value for value in knob.values(device, settings) if value != present)]
        candidates = [Candidate(label=in_words(value), setting=value) for value in values]
        left_out = knob.left_out(device)
        if len(values) == 1:
            return Choice(knob=knob.name, setting=present, why=left_out or explain(candidates, 0))
        round_cost = sum(self._cost.get(workload, 0.0) for workload in knob.measures) * len(values)
        starts = len(values) * (1 if len(values) <= self.bench.capacity else LEAST_ROUNDS)
        if starts * self.bench.start_seconds + LEAST_ROUNDS * round_cost > left:
            return Choice(knob=knob.name, setting=present, why=NO_TIME)
        choice = self._compare(knob, settings, candidates, max(share, LEAST_ROUNDS * round_cost))
        return choice.model_copy(update={"why": "; ".join(filter(None, [choice.why, left_out]))})

    def _compare(self, knob: Knob, settings: EngineSettings, candidates: list[Candidate], seconds: float) -> Choice:
        variants = [with_fields(settings, candidate.setting) for candidate in candidates]
        candidates, _ = self._rounds(candidates, variants, knob.measures, seconds)
        chosen = best(candidates)
        return Choice(
            knob=knob.name,
            setting=candidates[chosen].setting,
            why=explain(candidates, chosen),
            candidates=tuple(candidates),
        )

    def _rounds(
        self,
        candidates: list[Candidate],
        variants: Sequence[EngineSettings],
        measures: Sequence[Workload],
        seconds: float,
    ) -> tuple[list[Candidate], list[list[Round]]]:
        """Rounds over all variants that live, each beginning with another one. The first is the present setting."""
        until = self.clock() + seconds
        rounds: list[list[Round]] = [[] for _ in candidates]
        alive = list(range(len(candidates)))
        for number in range(MOST_ROUNDS):
            began = self.clock()
            for place in [*alive[number % len(alive) :], *alive[: number % len(alive)]]:
                try:
                    rounds[place].append(self._round(variants[place], measures))
                except TrialFailed as error:
                    candidates[place] = candidates[place].model_copy(update={"failure": error.message})
            alive = [place for place in alive if candidates[place].failure is None]
            if 0 not in alive or len(alive) == 1:
                break
            for place in alive[1:]:
                candidates[place] = compared(candidates[place], rounds[place], rounds[0])
            enough = number + 1 >= LEAST_ROUNDS
            alive = [place for place in alive if not place or not enough or (candidates[place].gain or 0) > HOPELESS]
            if len(alive) == 1 or (enough and 2 * self.clock() - began > until):
                break
        candidates[0] = compared(candidates[0], rounds[0], rounds[0])
        return candidates, rounds

    def _round(self, settings: EngineSettings, measures: Sequence[Workload]) -> Round:
        figures: dict[str, Figures] = {workload: self._measure(settings, workload) for workload in measures}
        row_speed = figures["rows"].speed / settings.max_rows if "rows" in figures else ROWS_LEAST_SPEED
        if row_speed < ROWS_LEAST_SPEED and settings.max_rows > self.base.max_rows:
            raise TrialFailed(f"each row writes only {row_speed:.1f} tokens a second")
        return figures

    def _overall(self, settings: EngineSettings, choices: list[Choice]) -> tuple[EngineSettings, tuple[Choice, ...]]:
        """Hold what was chosen against what there was, and go back to that if all together is worse."""
        if settings == self.base:
            return settings, tuple(choices)
        candidates = [Candidate(label="before", setting={}), Candidate(label="tuned", setting={})]
        cost = 2 * LEAST_ROUNDS * sum(self._cost[workload] for workload in OVERALL)
        candidates, _ = self._rounds(candidates, [self.base, settings], OVERALL, cost)
        tuned = candidates[1]
        worse = tuned.failure is not None or (tuned.gain or 0) < 1 - MARGIN
        why = f"kept what was before: {tuned.failure or 'it is better'}" if worse else explain(candidates, 1)
        choices = [*choices, Choice(knob="all together", setting={}, why=why, candidates=tuple(candidates))]
        if not worse:
            return settings, tuple(choices)
        kept = [_kept(choice, self.base, knob) for choice, knob in zip(choices, self.knobs, strict=False)]
        return self.base, (*kept, choices[-1])

    def _measure(self, settings: EngineSettings, workload: Workload) -> Figures:
        self._seed += 100
        started = self.clock()
        order = Order(self._slice, self._prompt_tokens, self._seed)
        figures = self.bench.measure(settings, workload, order)
        self._cost[workload] = self.clock() - started
        return figures

    @property
    def _slice(self) -> float:
        """Seconds of one measurement."""
        return min(LONGEST, max(SHORTEST, self.seconds / SLICES))


def _fields_of(settings: EngineSettings, names: Sequence[str]) -> Fields:
    return {name: getattr(settings, name) for name in names}


def _kept(choice: Choice, base: EngineSettings, knob: Knob) -> Choice:
    setting = _fields_of(base, knob.fields)
    why = choice.why if setting == choice.setting else f"as before, for all together was no better; {choice.why}"
    return choice.model_copy(update={"setting": setting, "why": why})
