"""The self-check with real children that really die, hang, crawl and lie."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from edgeai.config import CheckMode
from edgeai.engine.config import EngineSettings
from edgeai.errors import TrialFailed
from edgeai.package.package import Package
from edgeai.tuning import child, probe
from edgeai.tuning.check_log import read_log, write_log
from edgeai.tuning.choose import Chosen, choose, read_situation
from edgeai.tuning.profile import Golden, Profile, identity, write_profile
from edgeai.tuning.run_marker import RunMarker
from edgeai.tuning.self_check import SelfCheck
from tests.tuning.conftest import Misbehaviour
from tests.tuning.profiles import make_profile

TUNED = {"threads": 1, "spin_us": 0, "chunk_tokens": 48}
DEFAULT = {"spin_us": None}
CONSERVATIVE = {"draft_tokens": 0}


@dataclass
class Home:
    """A home with a package, and checks of it as `serve` does them."""

    package: Package
    folder: Path
    misbehaviour: Misbehaviour
    said: list[str] = field(default_factory=list)

    def start(self, mode: CheckMode = "changed", marker: RunMarker | None = None, **flags: Any) -> Chosen:
        situation = read_situation(self.package, flags, home=self.folder)
        return SelfCheck(situation, self.folder, self.said.append, self.misbehaviour.worker).run(mode, marker)

    def tuned(self, golden: Golden | None = None) -> Profile:
        profile = make_profile(self.package, golden=golden, **TUNED)
        write_profile(self.folder, profile)
        return profile

    def checks(self, action: Callable[[], object]) -> int:
        """How many children an action starts."""
        before = len(self.misbehaviour.started)
        action()
        return len(self.misbehaviour.started) - before


@pytest.fixture
def home(package: Package, tmp_path: Path, misbehaviour: Misbehaviour) -> Home:
    return Home(package, tmp_path / "home", misbehaviour)


def test_the_first_start_checks_and_later_ones_do_not(home: Home) -> None:
    assert home.checks(home.start) == 1
    assert home.said == ["checking tiny with the default settings ..."]
    log = read_log(home.folder, identity(home.package))
    assert log.golden is not None
    assert len(log.golden.tokens) > 1
    assert log.golden.tokens_per_second > 0
    assert home.checks(home.start) == 0
    assert home.start().notes == ()
    assert home.checks(lambda: home.start("never")) == 0
    assert home.checks(lambda: home.start("always")) == 1


def test_what_has_changed_is_checked_once(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.start()
    assert home.checks(lambda: home.start(threads=2)) == 1
    assert home.checks(lambda: home.start(threads=2)) == 0
    assert home.checks(home.start) == 0
    home.tuned()
    assert home.checks(home.start) == 1
    assert home.checks(home.start) == 0
    monkeypatch.setattr("edgeai.tuning.cpu_key.version", lambda _: "99.0")
    assert home.checks(home.start) == 1
    assert home.checks(home.start) == 0
    monkeypatch.setattr("edgeai.__version__", "99.0")
    assert home.checks(home.start) == 1


@pytest.mark.parametrize(
    ("act", "seen"),
    [
        ("SIGILL", "an illegal instruction (SIGILL)"),
        ("SIGKILL", "a kill (SIGKILL), most likely because memory ran out"),
        ("SIGILL when answering", "an illegal instruction"),
        ("raise", "RuntimeError: no such kernel"),
        ("wrong", "a wrong answer, token ids [1, 2, 3]"),
        ("garbage", "answering gave"),
    ],
)
def test_settings_that_fail_give_way_and_are_not_tried_again(home: Home, act: str, seen: str) -> None:
    home.tuned()
    home.misbehaviour.when(act, **TUNED)
    chosen = home.start()
    assert chosen.level.name == "default"
    assert chosen.settings.spin_us is None
    assert any("profile settings" in note and seen in note for note in chosen.notes)
    assert home.checks(home.start) == 0  # no crash loop: the outcome was kept
    again = home.start()
    assert again.level.name == "default"
    assert "`edgeai doctor --check` tries them again" in again.notes[0]
    assert choose(home.package, {}, home=home.folder).level.name == "default"  # `run` and `chat` know it too
    home.misbehaviour.forget()
    assert home.start("always").level.name == "profile"
    assert home.start().level.name == "profile"


def test_a_hang_ends_in_time(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "LOAD_SECONDS", 4.0)
    monkeypatch.setattr(probe, "ANSWER_SECONDS", 1.5)
    home.tuned()
    home.misbehaviour.when("hang", **TUNED)
    assert "loading the model took more than 4 s" in home.start().notes[0]
    home.misbehaviour.forget()
    home.misbehaviour.when("hang when answering", **TUNED)
    assert home.start("always").level.name == "default"


def test_settings_for_tight_memory_have_time_to_warm_up(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "LOAD_SECONDS", 0.001)
    settings = EngineSettings(threads=1, max_rows=2)
    with pytest.raises(TrialFailed, match="loading the model took more than 0 s"):
        probe.probe(home.package, settings, Golden())
    answer = probe.probe(home.package, replace(settings, tight=True), Golden())
    assert len(answer.tokens) > 1


def test_the_last_good_settings_come_before_defaults(home: Home) -> None:
    write_profile(home.folder, make_profile(home.package, chunk_tokens=96))
    assert home.start().level.name == "profile"
    home.tuned()  # tuned anew, and for the worse
    home.misbehaviour.when("SIGILL", **TUNED)
    chosen = home.start()
    assert chosen.level.name == "last good"
    assert chosen.settings.chunk_tokens == 96


def test_the_last_resort(home: Home) -> None:
    home.tuned()
    home.misbehaviour.when("SIGILL")
    home.misbehaviour.when("behave", **CONSERVATIVE)
    chosen = home.start()
    assert chosen.level.name == "conservative"
    assert (chosen.settings.threads, chosen.settings.spin_us, chosen.settings.draft_tokens) == (1, 0, 0)
    assert len(chosen.notes) == 2
    assert home.checks(home.start) == 0
    assert home.start().level.name == "conservative"


def test_nothing_works(home: Home) -> None:
    home.misbehaviour.when("SIGILL")
    with pytest.raises(TrialFailed, match=r"runs with no settings.*illegal instruction"):
        home.start()
    with pytest.raises(TrialFailed):
        home.start()
    assert home.start("never").level.name == "conservative"  # who insists gets the best chance
    home.misbehaviour.forget()
    assert home.start().level.name == "conservative"  # the last resort is always tried again
    assert home.start("always").level.name == "default"


def test_answers_that_are_wrong_with_all_settings_are_told_and_served(home: Home) -> None:
    """Then it is not the settings: perhaps another processor than the builder's rounds otherwise."""
    home.misbehaviour.when("wrong")
    chosen = home.start()
    assert chosen.level.name == "default"
    assert "edgeai verify" in chosen.notes[-1]


def test_wrong_tokens_are_those_of_the_profile(home: Home) -> None:
    """Without any misbehaviour: the real worker finds that the answer is another."""
    home.start()
    right = read_log(home.folder, identity(home.package)).golden
    assert right is not None
    home.tuned(Golden(tokens=right.tokens, tokens_per_second=0.001))
    assert home.start().level.name == "profile"
    assert home.start().notes == ()
    wrong = tuple((token + 1) % 200 for token in right.tokens)
    home.tuned(Golden(tokens=wrong, tokens_per_second=0.001))
    chosen = home.start()
    assert f"token ids {list(right.tokens)}; expected was token ids {list(wrong)}" in chosen.notes[0]


def known_speed(home: Home) -> Golden:
    home.start()
    golden = read_log(home.folder, identity(home.package)).golden
    assert golden is not None
    return golden


def test_slow_settings_give_way_to_faster_ones(home: Home) -> None:
    golden = known_speed(home)
    home.tuned(golden)
    home.misbehaviour.when("slow", **TUNED)
    chosen = home.start()
    assert chosen.level.name == "default"
    assert "edgeai tune" in chosen.notes[-1]
    assert home.checks(home.start) == 0
    assert home.start().level.name == "default"


def test_a_slow_machine_keeps_its_settings(home: Home) -> None:
    """Heat, or other work: nothing else is faster."""
    golden = known_speed(home)
    home.tuned(golden.model_copy(update={"tokens_per_second": 2 * golden.tokens_per_second}))
    home.misbehaviour.when("slow")
    chosen = home.start()
    assert chosen.level.name == "profile"
    assert "heat or other work" in chosen.notes[-1]
    assert home.checks(home.start) == 0
    assert home.start().level.name == "profile"


class Died(RunMarker):
    """What a server finds after one that died."""

    def __init__(self, died: str | None, deaths: int = 0) -> None:
        super().__init__(None, "")
        self.died, self.deaths = died, deaths


def test_after_a_death_the_settings_are_checked_again(home: Home) -> None:
    home.start()
    assert home.checks(lambda: home.start(marker=Died(None))) == 0
    assert home.checks(lambda: home.start(marker=Died("running"))) == 1
    assert home.checks(lambda: home.start(marker=Died("starting", 1))) == 1
    assert home.start(marker=Died("starting", 1)).level.name == "default"


def test_servers_that_die_though_the_check_is_good_fall_back_too(home: Home) -> None:
    home.tuned()
    assert home.start().level.name == "profile"
    chosen = home.start(marker=Died("starting", 2))
    assert chosen.level.name == "default"
    assert "2 servers in a row died while they started" in chosen.notes[0]
    assert home.start(marker=Died("starting", 3)).level.name == "conservative"


def test_a_home_that_cannot_be_written_does_not_stop_a_server(home: Home) -> None:
    home.folder.mkdir()
    (home.folder / "profiles").write_text("in the way")
    assert home.start().level.name == "default"
    assert "cannot be kept" in home.said[-1]


def test_a_log_from_another_day_serves_as_golden(home: Home) -> None:
    """What was answered under an older runtime has to be answered under a newer one."""
    home.start()
    log = read_log(home.folder, identity(home.package))
    assert log.golden is not None
    wrong = log.golden.model_copy(update={"tokens": tuple((token + 1) % 200 for token in log.golden.tokens)})
    write_log(home.folder, log.model_copy(update={"golden": wrong}))
    assert "a wrong answer" in home.start("always").notes[0]
