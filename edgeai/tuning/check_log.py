"""What self-checks of a package have seen on this device: which settings were good here, which were not, and when.

`$EDGEAI_HOME/profiles/check-PACKAGE.json`. A log that is damaged counts as none: what it would have saved is one check.
"""

from __future__ import annotations

import json
from pathlib import Path

from edgeai.recipe import Strict
from edgeai.tuning.cpu_key import PROFILES_FOLDER
from edgeai.tuning.knobs import Fields
from edgeai.tuning.profile import DIGEST_LENGTH, Golden
from edgeai.tuning.sealed import unsealed, write_sealed

TUNED, DEFAULT, LAST_GOOD, CONSERVATIVE_LEVEL = "profile", "default", "last good", "conservative"
KEPT = 16  # outcomes


class Outcome(Strict):
    """What one check saw of some settings in one environment; `problem` is None where they were good."""

    environment: str  # digest of processor, runtime, package, profile and edgeai's version
    settings: Fields  # the tunable fields
    level: str  # what the settings are: a profile, defaults, ...
    problem: str | None
    wrong: bool = False  # the problem is a wrong answer
    slow: bool = False  # it is right, but far from the profile's speed
    tokens_per_second: float
    date: str


class CheckLog(Strict):
    """The newest outcomes, oldest first, and the golden answer of the first good check."""

    package: str  # digest
    golden: Golden | None = None
    outcomes: tuple[Outcome, ...] = ()

    def find(self, environment: str, settings: Fields) -> Outcome | None:
        """The newest outcome of just these settings in just this environment."""
        wanted = _key(settings)
        same = (each for each in reversed(self.outcomes) if each.environment == environment)
        return next((each for each in same if _key(each.settings) == wanted), None)

    def last_good(self) -> Outcome | None:
        """The newest settings, in whatever environment, of which nothing bad was seen later; not the last resort."""
        bad: set[str] = set()
        for outcome in reversed(self.outcomes):
            if outcome.level == CONSERVATIVE_LEVEL:
                continue
            if outcome.problem is None and not outcome.slow and _key(outcome.settings) not in bad:
                return outcome
            bad.add(_key(outcome.settings))
        return None

    def with_outcome(self, outcome: Outcome) -> CheckLog:
        others = [
            each
            for each in self.outcomes
            if (each.environment, _key(each.settings)) != (outcome.environment, _key(outcome.settings))
        ]
        return self.model_copy(update={"outcomes": (*others, outcome)[-KEPT:]})


def read_log(home: Path, package: str) -> CheckLog:
    """The log of a package by its digest; an empty one where there is none, or a damaged or foreign one."""
    try:
        content, intact = unsealed(json.loads(_path(home, package).read_bytes()))
        log = CheckLog.model_validate_json(json.dumps(content))
    except (OSError, ValueError, AttributeError):  # AttributeError: JSON, but not an object
        return CheckLog(package=package)
    return log if log.package == package and intact else CheckLog(package=package)


def write_log(home: Path, log: CheckLog) -> None:
    """Keep a log, power-safe. Raises `OutOfDisk`."""
    write_sealed(_path(home, log.package), log.model_dump(mode="json"))


def _path(home: Path, package: str) -> Path:
    return home / PROFILES_FOLDER / f"check-{package[:DIGEST_LENGTH]}.json"


def _key(settings: Fields) -> str:
    return json.dumps(settings, sort_keys=True)
