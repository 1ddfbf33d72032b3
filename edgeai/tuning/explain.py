"""What `edgeai doctor` says of the settings: each one's value, where it is from, and the measured reason."""

from __future__ import annotations

from dataclasses import dataclass

from edgeai.tuning.check_log import CONSERVATIVE_LEVEL, DEFAULT, TUNED
from edgeai.tuning.choose import Chosen, Situation
from edgeai.tuning.knobs import KNOBS, Fields, Knob, in_words


@dataclass(frozen=True, slots=True)
class Explained:
    """One knob as it is set. `source` is flag, profile, default, or the name of what is fallen back to."""

    knob: str
    what: str
    setting: Fields
    source: str
    why: str

    @property
    def value(self) -> str:
        """The setting in a few words."""
        return in_words(self.setting)


def explain_settings(situation: Situation, chosen: Chosen) -> list[Explained]:
    """Every knob, in the order of `KNOBS`."""
    return [_explained(knob, situation, chosen) for knob in KNOBS]


def _explained(knob: Knob, situation: Situation, chosen: Chosen) -> Explained:
    setting = {name: getattr(chosen.settings, name) for name in knob.fields}
    source, why = _origin(knob, situation, chosen)
    asked = {name: chosen.level.asked.get(name, value) for name, value in setting.items()}
    if any(list(_plain(asked[name])) != list(_plain(setting[name])) for name in setting):
        why = f"memory does not allow {in_words(asked)}; {why}"
    return Explained(knob.name, knob.what, setting, source, why)


def _origin(knob: Knob, situation: Situation, chosen: Chosen) -> tuple[str, str]:
    level = chosen.level
    if level.name != CONSERVATIVE_LEVEL and any(situation.flags.get(name) is not None for name in knob.fields):
        return "flag", "asked for"
    if level.name == TUNED and situation.profile is not None:
        choice = next((each for each in situation.profile.choices if each.knob == knob.name), None)
        if choice is not None:
            limited = any(name not in level.asked for name in choice.setting)
            return TUNED, f"this process may not use what was tuned; {choice.why}" if limited else choice.why
    if level.name in (TUNED, DEFAULT) or not any(name in level.asked for name in knob.fields):
        return DEFAULT, knob.default
    return level.name, "what was meant failed its self-check"


def _plain(value: object) -> tuple[object, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,)
