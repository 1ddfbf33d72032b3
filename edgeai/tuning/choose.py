"""Which settings an engine gets: one precedence, for every command.

1. What the user asks for (flags).
2. What was tuned for this package on this processor, unless it was seen to fail here.
3. Defaults.

Then what the machine and its memory allow: `limited`, and `default_settings` for memory.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import edgeai
from edgeai.device.affinity import allowed_cpus
from edgeai.device.profile import read_cpu
from edgeai.engine.config import EngineSettings
from edgeai.model import default_settings
from edgeai.package.package import Package
from edgeai.tuning.check_log import CONSERVATIVE_LEVEL, DEFAULT, LAST_GOOD, TUNED, CheckLog, Outcome, read_log
from edgeai.tuning.cpu_key import CpuKey, read_cpu_key
from edgeai.tuning.knobs import TUNABLE, Fields
from edgeai.tuning.limits import CONSERVATIVE, limited
from edgeai.tuning.profile import QUESTION, Golden, Profile, identity, read_profile


@dataclass(frozen=True, slots=True)
class Level:
    """One set of settings that can be used.

    `asked` are the tunable fields that somebody asked for, within the processors there are; memory may allow less in
    `settings`, and from one start to the next another amount of it.
    """

    name: str
    asked: Fields
    settings: EngineSettings

    @property
    def tunable(self) -> Fields:
        """All tunable fields as they are."""
        return {name: getattr(self.settings, name) for name in sorted(TUNABLE)}


@dataclass(frozen=True)
class Situation:
    """Everything that the choice depends on, read once."""

    package: Package
    identity: str  # of the package
    flags: Mapping[str, Any]
    profile: Profile | None
    note: str | None  # why there is a profile that is not used
    log: CheckLog
    cpu: CpuKey
    usable: float
    allowed: frozenset[int]

    @property
    def environment(self) -> str:
        """What a check's outcome depends on besides the settings. Any change makes for a new check."""
        profile = self.profile.digest if self.profile else ""
        parts = [self.cpu.model_dump(mode="json"), self.identity, profile, edgeai.__version__]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]

    @cached_property
    def levels(self) -> list[Level]:
        """What to try, best first, each different from those before it."""
        default, last = self.level(DEFAULT, {}), self.log.last_good()
        found = [self.level(TUNED, self.profile.settings)] if self.profile else [default]
        if last is not None:  # what has worked here comes before defaults that may not have been tried
            again = self.level(LAST_GOOD, last.settings)
            found += [again] if again.tunable != default.tunable else []
        found += [default, self.level(CONSERVATIVE_LEVEL, CONSERVATIVE)]
        return [level for place, level in enumerate(found) if level.tunable not in [e.tunable for e in found[:place]]]

    def level(self, name: str, values: Fields) -> Level:
        """Settings of one level: flags win, but for those that the last resort is about."""
        flags = {key: value for key, value in self.flags.items() if value is not None}
        chosen = {**flags, **values} if name == CONSERVATIVE_LEVEL else {**values, **flags}
        asked = limited({key: value for key, value in chosen.items() if key in TUNABLE}, self.allowed, self.usable)
        if "threads" in flags and name != CONSERVATIVE_LEVEL:
            asked["threads"] = flags["threads"]  # whoever asks for more than there is gets it
            if len(asked.get("cpus", ())) < asked["threads"]:
                asked.pop("cpus", None)
        others = {key: value for key, value in chosen.items() if key not in TUNABLE}
        return Level(name, asked, default_settings(self.package.manifest, **others, **asked))

    @property
    def golden(self) -> Golden:
        """What to hold an answer against: the profile's, that of the first good check, the builder's, or nothing."""
        if self.profile is not None:
            return self.profile.golden
        sample = next((each for each in self.package.manifest.samples if each.prompt == QUESTION), None)
        return self.log.golden or Golden(text=sample.answer if sample else "")


@dataclass(frozen=True, slots=True)
class Chosen:
    """The settings to use, which level they are, and what the user should know about it."""

    level: Level
    notes: tuple[str, ...] = ()

    @property
    def settings(self) -> EngineSettings:
        return self.level.settings


def read_situation(package: Package, flags: Mapping[str, Any], *, home: Path, use_profile: bool = True) -> Situation:
    """Read profile and log of a package, and this machine."""
    cpu = read_cpu()
    key = read_cpu_key(cpu)
    digest = identity(package)
    profile, note = read_profile(home, key, digest) if use_profile else (None, None)
    log = read_log(home, digest)
    return Situation(package, digest, flags, profile, note, log, key, cpu.usable, allowed_cpus())


def choose(package: Package, flags: Mapping[str, Any], *, home: Path, use_profile: bool = True) -> Chosen:
    """The settings to use without a check: the first that have not been seen to fail here."""
    return remembered(read_situation(package, flags, home=home, use_profile=use_profile))


def remembered(situation: Situation) -> Chosen:
    """By what earlier checks have seen."""
    notes = [situation.note] if situation.note else []
    for level in situation.levels:
        outcome = situation.log.find(situation.environment, level.asked)
        if outcome is None or outcome.problem is None:
            return Chosen(level, tuple(notes))
        notes.append(failed_before(level, outcome))
    return Chosen(situation.levels[-1], tuple(notes))


def failed_before(level: Level, outcome: Outcome) -> str:
    """What to tell of settings that are not tried again."""
    return (
        f"the {level.name} settings are not used, for on {outcome.date[:10]} the self-check saw: {outcome.problem}."
        " `edgeai doctor --check` tries them again, `edgeai tune` finds new ones"
    )
