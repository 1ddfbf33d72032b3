"""One precedence: flags, profile, defaults; and what has failed before is not taken."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeai.device.affinity import allowed_cpus
from edgeai.model import default_settings
from edgeai.package.package import Package
from edgeai.tuning.check_log import CheckLog, Outcome, read_log, write_log
from edgeai.tuning.choose import Situation, choose, read_situation
from edgeai.tuning.limits import CONSERVATIVE
from edgeai.tuning.profile import identity, write_profile
from tests.tuning.profiles import make_profile

DATE = "2026-01-02T03:04:05+00:00"


def outcome(situation: Situation, settings: dict[str, object], problem: str | None, **more: object) -> Outcome:
    facts = {"level": "profile", "tokens_per_second": 9.0, "date": DATE, "environment": situation.environment} | more
    return Outcome.model_validate(facts | {"settings": settings, "problem": problem})


def test_defaults_without_a_profile(package: Package, tmp_path: Path) -> None:
    chosen = choose(package, {}, home=tmp_path)
    assert chosen.level.name == "default"
    assert chosen.notes == ()
    assert chosen.settings.threads == default_settings(package.manifest).threads
    assert not any(tmp_path.iterdir())  # looking leaves nothing behind


def test_a_profile_over_defaults_and_flags_over_both(package: Package, tmp_path: Path) -> None:
    write_profile(tmp_path, make_profile(package, threads=1, spin_us=0, chunk_tokens=64))
    settings = choose(package, {}, home=tmp_path).settings
    assert (settings.threads, settings.spin_us, settings.chunk_tokens) == (1, 0, 64)
    settings = choose(package, {"threads": 3, "max_queue": 5, "max_rows": None}, home=tmp_path).settings
    assert (settings.threads, settings.spin_us, settings.chunk_tokens, settings.max_queue) == (3, 0, 64, 5)
    settings = choose(package, {"max_context": 256}, home=tmp_path, use_profile=False).settings
    assert (settings.spin_us, settings.chunk_tokens, settings.max_context) == (None, 128, 256)
    assert settings.threads == default_settings(package.manifest).threads


def test_a_profile_asks_for_no_more_than_there_is(package: Package, tmp_path: Path) -> None:
    write_profile(tmp_path, make_profile(package, threads=999, cpus=(5000, 5001)))
    settings = choose(package, {}, home=tmp_path).settings
    assert settings.threads <= len(allowed_cpus())
    assert settings.cpus == ()


def test_more_threads_than_pinned_processors_unpin(package: Package, tmp_path: Path) -> None:
    cpu = min(allowed_cpus())
    write_profile(tmp_path, make_profile(package, threads=1, cpus=(cpu,)))
    assert choose(package, {}, home=tmp_path).settings.cpus == (cpu,)
    assert choose(package, {"threads": 2}, home=tmp_path).settings.cpus == ()


def test_a_damaged_profile_is_told_and_not_used(package: Package, tmp_path: Path) -> None:
    path = write_profile(tmp_path, make_profile(package, threads=1, spin_us=0))
    path.write_text("{")
    chosen = choose(package, {}, home=tmp_path)
    assert chosen.settings.spin_us is None
    assert str(path) in chosen.notes[0]


def test_levels_are_in_order_and_different(package: Package, tmp_path: Path) -> None:
    write_profile(tmp_path, make_profile(package, threads=1, spin_us=0))
    situation = read_situation(package, {}, home=tmp_path)
    assert [level.name for level in situation.levels] == ["profile", "default", "conservative"]
    log = CheckLog(package=situation.identity).with_outcome(
        outcome(situation, {"threads": 1, "chunk_tokens": 32}, None)
    )
    write_log(tmp_path, log)
    situation = read_situation(package, {}, home=tmp_path)
    assert [level.name for level in situation.levels] == ["profile", "last good", "default", "conservative"]
    assert situation.levels[1].settings.chunk_tokens == 32
    last = situation.levels[-1].settings
    assert {name: getattr(last, name) for name in CONSERVATIVE} == CONSERVATIVE
    assert last.kv_budget_bytes == situation.levels[0].settings.kv_budget_bytes or last.max_rows < 8


def test_the_last_resort_does_not_obey_flags_that_it_is_about(package: Package, tmp_path: Path) -> None:
    flags = {"threads": 7, "max_context": 200}
    last = read_situation(package, flags, home=tmp_path).levels[-1].settings
    assert (last.threads, last.max_context) == (1, 200)


def test_what_failed_is_not_taken_until_something_changes(package: Package, tmp_path: Path) -> None:
    write_profile(tmp_path, make_profile(package, threads=1, spin_us=0))
    situation = read_situation(package, {}, home=tmp_path)
    level = situation.levels[0]
    write_log(tmp_path, situation.log.with_outcome(outcome(situation, level.asked, "a hang")))
    chosen = choose(package, {}, home=tmp_path)
    assert chosen.level.name == "default"
    assert "2026-01-02 the self-check saw: a hang" in chosen.notes[0]
    assert "edgeai tune" in chosen.notes[0]
    write_profile(tmp_path, make_profile(package, threads=1, spin_us=0, chunk_tokens=64))
    assert choose(package, {}, home=tmp_path).level.name == "profile"


def test_a_damaged_log_counts_as_none(package: Package, tmp_path: Path) -> None:
    situation = read_situation(package, {}, home=tmp_path)
    log = situation.log.with_outcome(outcome(situation, {}, "a hang"))
    write_log(tmp_path, log)
    assert read_log(tmp_path, situation.identity) == log
    (path,) = (tmp_path / "profiles").iterdir()
    for content in ("{", "[]", "null", path.read_text().replace("a hang", "a jump")):
        path.write_text(content)
        assert read_log(tmp_path, situation.identity) == CheckLog(package=situation.identity)


@pytest.mark.parametrize("count", [3, 40])
def test_a_log_keeps_the_newest(package: Package, tmp_path: Path, count: int) -> None:
    situation = read_situation(package, {}, home=tmp_path)
    log = CheckLog(package=identity(package))
    for threads in range(1, count + 1):
        log = log.with_outcome(outcome(situation, {"threads": threads}, None))
        log = log.with_outcome(outcome(situation, {"threads": threads}, None))
    assert len(log.outcomes) == min(count, 16)
    assert log.last_good() == log.outcomes[-1]
    assert log.last_good().settings == {"threads": count}  # type: ignore[union-attr]


def test_the_last_good_ones_have_not_failed_since(package: Package, tmp_path: Path) -> None:
    situation = read_situation(package, {}, home=tmp_path)
    log = CheckLog(package=identity(package))
    log = log.with_outcome(outcome(situation, {"threads": 1}, None))
    log = log.with_outcome(outcome(situation, {"threads": 2}, None, environment="older"))
    log = log.with_outcome(outcome(situation, {"threads": 2}, "a hang"))
    log = log.with_outcome(outcome(situation, {"threads": 3}, None, slow=True))
    last = log.last_good()
    assert last is not None
    assert last.settings == {"threads": 1}
