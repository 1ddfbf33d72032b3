"""A tuning profile: which settings were found to be best for a package on a processor, and what was measured.

`$EDGEAI_HOME/profiles/CPU-PACKAGE.json`, written power-safe and with a digest of its own. One that is damaged, or was
measured on another processor or for another package, is not used, and the reason is told.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import get_args

from pydantic import Field, ValidationError

from edgeai.engine.config import EngineSettings, KVType
from edgeai.package.package import Package
from edgeai.recipe import Strict, describe_errors
from edgeai.tuning.cpu_key import PROFILES_FOLDER, CpuKey
from edgeai.tuning.knobs import LEAST, TUNABLE, Fields
from edgeai.tuning.sealed import digest_of, unsealed, write_sealed
from edgeai.warm import without_warm

PROFILE_SCHEMA = 1
QUESTION = "What is the capital of France?"  # every package with samples has an answer to it
DIGEST_LENGTH = 16  # characters of the package's digest in file names
TUNE_AGAIN = "`edgeai tune` makes a new one"


class Figures(Strict):
    """What one workload gave: tokens a second, and processor seconds for a thousand tokens. Medians."""

    speed: float
    cpu: float


class Candidate(Strict):
    """One value of a knob beside the value it had before, or why it could not be measured.

    `gain` is the median over the rounds of how much better it was (1.1: ten percent), processor time counted in;
    `noise` how far that may be off.
    """

    label: str
    setting: Fields
    figures: dict[str, Figures] = Field(default_factory=dict)  # by workload
    rounds: int = 0
    gain: float | None = None
    noise: float | None = None
    failure: str | None = None


class Choice(Strict):
    """What was chosen for one knob, and why. The first candidate is the value before."""

    knob: str
    setting: Fields
    why: str
    candidates: tuple[Candidate, ...] = ()


class Golden(Strict):
    """What the model has to answer to a question, greedily, and how fast it did.

    As token ids, or as text where an answer was kept as such; neither: not known. Speed 0: not known.
    """

    question: str = QUESTION
    tokens: tuple[int, ...] = ()
    text: str = ""
    tokens_per_second: float = 0.0

    @property
    def answer(self) -> str:
        """What is expected, for people; empty where nothing is."""
        return f"token ids {list(self.tokens)}" if self.tokens else repr(self.text) if self.text else ""


class Profile(Strict):
    """A profile, whole."""

    schema_version: int = PROFILE_SCHEMA
    cpu: CpuKey
    package: str  # digest
    package_name: str
    created: str  # ISO 8601
    seconds: float  # that measuring took
    choices: tuple[Choice, ...]
    golden: Golden

    @property
    def settings(self) -> Fields:
        """Fields of `EngineSettings` that were chosen."""
        return {name: value for choice in self.choices for name, value in choice.setting.items()}

    @property
    def digest(self) -> str:
        return digest_of(self.model_dump(mode="json"))


def profile_path(home: Path, cpu: CpuKey, package: str) -> Path:
    """Where the profile of a package, by its digest, is or would be."""
    return home / PROFILES_FOLDER / f"{cpu.slug}-{package[:DIGEST_LENGTH]}.json"


def identity(package: Package) -> str:
    """The digest that profiles and checks go by: prompts that were computed ahead make no difference to them."""
    return replace(package, manifest=without_warm(package.manifest)).digest


def write_profile(home: Path, profile: Profile) -> Path:
    """Keep a profile, in place of an older one. Raises `OutOfDisk`."""
    path = profile_path(home, profile.cpu, profile.package)
    write_sealed(path, profile.model_dump(mode="json"))
    return path


def read_profile(home: Path, cpu: CpuKey, digest: str) -> tuple[Profile | None, str | None]:
    """The profile of a package on this processor, and else, if there is one that cannot be used, why not."""
    path = profile_path(home, cpu, digest)
    if not path.exists():
        others = sorted(path.parent.glob(f"*-{digest[:DIGEST_LENGTH]}.json"))
        others = [other for other in others if not other.name.startswith("check-")]
        what = "is of another processor or onnxruntime"
        return None, f"{others[0]} {what}; it is not used, {TUNE_AGAIN}" if others else None
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        return None, f"{path} cannot be read ({error}); {TUNE_AGAIN}"
    problem = None if isinstance(document, dict) else "is not a JSON object"
    problem = problem or _schema_problem(document)
    if problem is None:
        try:
            profile = _parsed(document)
            problem = _foreign(profile, cpu, digest)
        except ValidationError as error:
            problem = f"is not a profile: {describe_errors(error)}"
        except ValueError as error:
            problem = str(error)
        else:
            if problem is None:
                return profile, None
    return None, f"{path} {problem}; it is not used, {TUNE_AGAIN}"


def with_fields(settings: EngineSettings, values: Fields) -> EngineSettings:
    """`settings` with some of those fields replaced that can be tuned. Raises ValueError for what does not fit."""
    for name, value in values.items():
        if name not in TUNABLE:
            raise ValueError(f"has a setting {name}, which is not tuned")
        if not _fits(name, value):
            raise ValueError(f"has {name} {value!r}")
    fields: Fields = {name: tuple(each) if isinstance(each, list) else each for name, each in values.items()}
    return replace(settings, **fields)


def _fits(name: str, value: object) -> bool:
    """Whether a field may have a value, by the kind of its default."""
    match getattr(EngineSettings(), name):
        case tuple():
            return isinstance(value, list | tuple) and all(type(each) is int and each >= 0 for each in value)
        case bool():
            return isinstance(value, bool)
        case str():  # the KV cache's type is the only one
            return value in get_args(KVType)
        case default:
            return (value is None and default is None) or (type(value) is int and value >= LEAST.get(name, 0))


def _parsed(document: Fields) -> Profile:
    """Raises `ValidationError` for what is no profile, ValueError that says what is wrong with one."""
    content, intact = unsealed(document)
    profile = Profile.model_validate_json(json.dumps(content))
    if not intact:
        raise ValueError("has been changed or damaged: its sha256 does not fit")
    with_fields(EngineSettings(), profile.settings)
    return profile


def _schema_problem(document: Fields) -> str | None:
    version = document.get("schema_version")
    return None if version == PROFILE_SCHEMA else f"has schema version {version} instead of {PROFILE_SCHEMA}"


def _foreign(profile: Profile, cpu: CpuKey, package: str) -> str | None:
    if profile.package != package:
        return "was measured for another package"
    here, there = cpu.model_dump(), profile.cpu.model_dump()
    differing = [f"{name} {there[name]} instead of {here[name]}" for name in here if here[name] != there[name]]
    return f"was measured on another machine: {', '.join(differing)}" if differing else None
