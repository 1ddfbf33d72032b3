"""The self-check at start: a child process loads the package as the server would and answers the golden prompt.

It runs when something has changed since the last good check: processor, onnxruntime, package, profile, edgeai itself,
what the user asks for, or the last server died. Settings that fail are not tried again until something changes; then
the next ones get their check: the last good ones, the defaults, and one thread with everything clever off.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from edgeai.config import CheckMode
from edgeai.errors import OutOfDisk, TrialFailed
from edgeai.tuning.check_log import CONSERVATIVE_LEVEL, Outcome, write_log
from edgeai.tuning.choose import Chosen, Level, Situation, failed_before, remembered
from edgeai.tuning.profile import Golden
from edgeai.tuning.run_marker import RunMarker

if TYPE_CHECKING:
    from edgeai.tuning.golden import Answer

SLOW = 0.5  # of the profile's speed
FASTER = 1.5  # than the slow settings: others that are not are no help
DEATHS = 2  # servers in a row that died while they started
WRONG_EVERYWHERE = (
    "no settings make a difference to that, so the model is served all the same: `edgeai verify` reads the package"
)
Say = Callable[[str], object]


@dataclass
class SelfCheck:
    """Checks the settings of one package, best first, and remembers what was seen."""

    situation: Situation
    home: Path
    say: Say
    worker: Sequence[str] | None = None

    def run(self, mode: CheckMode, marker: RunMarker | None = None) -> Chosen:
        """The settings to use. Raises `TrialFailed` when the model runs with none.

        Where all give wrong answers, it is not the settings: then the first are used, and the user is told.
        """
        levels = self.situation.levels
        if marker and marker.deaths >= DEATHS:
            self._blame(levels, f"{marker.deaths} servers in a row died while they started")
        if mode == "never":
            return remembered(self.situation)
        notes = [self.situation.note] if self.situation.note else []
        wrong = True
        for level in levels:
            outcome, fresh = self.outcome_of(level), False
            if mode == "always" or self._due(outcome, marker, last=level is levels[-1]):
                outcome, fresh = self.check(level), True
            if outcome is None or outcome.problem is None:
                return self._unless_slow(level, outcome, notes) if outcome and fresh else Chosen(level, tuple(notes))
            seen = f"the self-check of the {level.name} settings saw {outcome.problem}"
            notes.append(seen if fresh else failed_before(level, outcome))
            wrong = wrong and outcome.wrong
        if wrong:
            return Chosen(levels[0], (*notes, WRONG_EVERYWHERE))
        raise TrialFailed(
            f"{self.situation.package.name} runs with no settings on this machine: {'; '.join(notes)}",
            "`edgeai verify` reads the package, `edgeai doctor` examines the machine, --check always tries all again",
        )

    def _due(self, outcome: Outcome | None, marker: RunMarker | None, *, last: bool) -> bool:
        """Whether something has changed: new settings or surroundings, or the last server died with them.

        What failed is not tried again, but for the last resort.
        """
        if outcome is None:
            return True
        if outcome.problem is not None:
            return last
        return marker is not None and marker.died is not None

    def check(self, level: Level) -> Outcome:
        """Try one level in a child process and remember the outcome."""
        self.say(f"checking {self.situation.package.name} with the {level.name} settings ...")
        from edgeai.tuning.probe import probe  # only here: most starts do without

        golden = self.situation.golden
        try:
            answer = probe(self.situation.package, level.settings, golden, worker=self.worker)
        except TrialFailed as error:
            return self._remember(level, error.message, None)
        problem = None
        if answer.wrong:
            expected = f"expected was {golden.answer}" if golden.answer else "read at once it is another"
            problem = f"a wrong answer, token ids {list(answer.tokens)}; {expected}"
        return self._remember(level, problem, answer)

    def outcome_of(self, level: Level) -> Outcome | None:
        """What is known of a level in the present environment."""
        return self.situation.log.find(self.situation.environment, level.asked)

    def _unless_slow(self, level: Level, outcome: Outcome, notes: list[str]) -> Chosen:
        """Slow settings give way only to others that are faster now: heat and other work slow all of them down."""
        if not outcome.slow:
            return Chosen(level, tuple(notes))
        seen = f"{outcome.tokens_per_second:.1f} tokens/s instead of {self.situation.golden.tokens_per_second:.1f}"
        for other in self.situation.levels:
            if other.name in (level.name, CONSERVATIVE_LEVEL):
                continue
            found = self.check(other)
            if found.problem is None and found.tokens_per_second > FASTER * outcome.tokens_per_second:
                seen = f"{seen}, and {found.tokens_per_second:.1f} with the {other.name} settings"
                self._blame([level], seen)
                notes.append(f"the self-check of the {level.name} settings saw {seen}; `edgeai tune` measures again")
                return Chosen(other, tuple(notes))
        notes.append(f"the self-check saw {seen}; other settings are no faster, so it is heat or other work")
        return Chosen(level, tuple(notes))

    def _blame(self, levels: Sequence[Level], problem: str) -> None:
        """Put a problem down to the first of these levels that has none yet."""
        for level in levels:
            known = self.outcome_of(level)
            if known is None or known.problem is None:
                self._remember(level, problem, None)
                return

    def _remember(self, level: Level, problem: str | None, answer: Answer | None) -> Outcome:
        speed = answer.tokens_per_second if answer else 0.0
        outcome = Outcome(
            environment=self.situation.environment,
            settings=level.asked,
            level=level.name,
            problem=problem,
            wrong=answer is not None and answer.wrong,
            slow=problem is None and 0 < speed < SLOW * self.situation.golden.tokens_per_second,
            tokens_per_second=speed,
            date=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        log = self.situation.log.with_outcome(outcome)
        if problem is None and answer and log.golden is None:
            golden = Golden(tokens=answer.tokens, tokens_per_second=speed)
            log = log.model_copy(update={"golden": golden})
        self.situation = replace(self.situation, log=log)
        try:
            write_log(self.home, log)
        except (OSError, OutOfDisk) as error:  # a server without a disk serves all the same
            self.say(f"what the check saw cannot be kept, so that it will run again: {error}")
        return outcome
