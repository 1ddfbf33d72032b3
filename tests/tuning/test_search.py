"""The search, over a made-up machine whose clock is moved by what is measured."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from edgeai.device.topology import Core, Topology
from edgeai.engine.config import EngineSettings
from edgeai.errors import TrialFailed
from edgeai.package.package import Package
from edgeai.tuning.knobs import KNOBS, Device, Workload, chunk_sizes
from edgeai.tuning.profile import Choice, Figures
from edgeai.tuning.search import HOPELESS, LEAST_ROUNDS, MOST_ROUNDS, NO_TIME, Search
from edgeai.tuning.workloads import Order

FOUR_CORES = Topology(tuple(Core((cpu,), 1024) for cpu in range(4)), 2400)
BASE = EngineSettings(threads=4, max_rows=8, chunk_tokens=128, draft_tokens=10)

Speed = Callable[[EngineSettings, Workload], float]


class MadeUpMachine:
    """In place of `Bench`: each measurement has the speed that `speed` says, and takes as long as it was ordered to, or
    as long as its prompt takes.
    """

    capacity, start_seconds = 8, 0.5

    def __init__(self, speed: Speed) -> None:
        self.speed = speed
        self.now = 0.0
        self.asked: list[tuple[EngineSettings, Workload]] = []
        self.orders: list[Order] = []

    def measure(self, settings: EngineSettings, workload: Workload, order: Order) -> Figures:
        self.asked.append((settings, workload))
        self.orders.append(order)
        speed = self.speed(settings, workload)
        self.now += order.prompt_tokens / speed if workload == "prefill" else order.seconds
        return Figures(speed=speed, cpu=10.0)

    def count(self, workload: Workload, **wanted: Any) -> int:
        """How often settings like these were measured."""
        return sum(
            asked == workload and all(getattr(settings, name) == value for name, value in wanted.items())
            for settings, asked in self.asked
        )


def search(machine: MadeUpMachine, package: Package, *knobs: str, seconds: float = 60.0) -> Search:
    chosen = [knob for knob in KNOBS if knob.name in knobs] or KNOBS
    device = Device(FOUR_CORES, 4.0, package)
    return Search(machine, device, BASE, seconds, chosen, clock=lambda: machine.now)  # type: ignore[arg-type]


def why(choices: Sequence[Choice], knob: str) -> str:
    return next(choice.why for choice in choices if choice.knob == knob)


def fast(settings: EngineSettings, workload: Workload) -> float:
    """Nothing makes a difference."""
    return 1000.0 if workload == "prefill" else 100.0


def test_where_nothing_is_better_everything_stays(package: Package) -> None:
    machine = MadeUpMachine(fast)
    settings, choices = search(machine, package).run()
    assert settings == BASE
    assert [choice.knob for choice in choices] == [knob.name for knob in KNOBS]  # and nothing to hold against it
    assert "no other value is clearly better" in why(choices, "threads")


def test_it_keeps_to_its_time(package: Package) -> None:
    machine = MadeUpMachine(fast)
    search(machine, package, seconds=60.0).run()
    assert 15 < machine.now < 70
    assert max(order.seconds for order in machine.orders) <= 1


@pytest.mark.parametrize("seed", range(5))
def test_a_better_value_is_found_through_noise(package: Package, seed: int) -> None:
    """Heat makes the whole machine slower and faster by a third, every minute; and each figure is up to 3 % off."""
    chance = random.Random(seed)

    def speed(settings: EngineSettings, workload: Workload) -> float:
        load = 1 + math.sin(machine.now / 10) / 3
        return load * chance.uniform(0.97, 1.03) * fast(settings, workload) * (1.2 if settings.threads == 2 else 1)

    machine = MadeUpMachine(speed)
    settings, choices = search(machine, package, "threads", "KV cache", "rows").run()
    assert settings == dataclasses.replace(BASE, threads=2)
    assert "% better" in why(choices, "threads")
    assert choices[-1].knob == "all together"


def tuned_by_noise(package: Package, seed: int) -> EngineSettings:
    """The outcome on a machine where no setting is better."""
    chance = random.Random(seed)

    def speed(settings: EngineSettings, workload: Workload) -> float:
        return (1 + math.sin(machine.now / 10) / 3) * chance.uniform(0.97, 1.03) * fast(settings, workload)

    machine = MadeUpMachine(speed)
    return search(machine, package).run()[0]


def test_noise_alone_hardly_ever_changes_anything(package: Package) -> None:
    """A score of comparisons at 95 % and a margin: one tuning in twenty takes noise for a gain, and loses nothing."""
    changed = [seed for seed in range(60) if tuned_by_noise(package, seed) != BASE]
    assert len(changed) <= 6


def test_a_value_that_kills_its_child_is_out_and_the_rest_goes_on(package: Package) -> None:
    def speed(settings: EngineSettings, workload: Workload) -> float:
        if settings.threads == 3:
            raise TrialFailed("loading the model ended in a memory fault (SIGSEGV)")
        return fast(settings, workload) * (1.2 if settings.threads == 2 else 1)

    machine = MadeUpMachine(speed)
    settings, choices = search(machine, package, "threads").run()
    assert settings.threads == 2
    assert machine.count("decode", threads=3) == 1
    dead = [candidate.label for candidate in choices[0].candidates if candidate.failure]
    assert dead == ["3"]


def test_what_is_hopeless_is_not_measured_for_long(package: Package) -> None:
    worse = HOPELESS - 0.1
    machine = MadeUpMachine(
        lambda settings, workload: fast(settings, workload) * (worse if settings.threads == 1 else 1)
    )
    _, choices = search(machine, package, "threads").run()
    assert machine.count("decode", threads=1) == LEAST_ROUNDS
    assert machine.count("decode", threads=2) == MOST_ROUNDS
    assert "no other value is clearly better" in why(choices, "threads")


def test_what_is_worse_all_together_goes_back(package: Package) -> None:
    """A knob's own work gains, everything else loses."""

    def speed(settings: EngineSettings, workload: Workload) -> float:
        draws = {"rows": 1.5, "batch": 0.6, "decode": 0.8}
        return fast(settings, workload) * (draws.get(workload, 1.0) if settings.max_rows == 16 else 1)

    settings, choices = search(MadeUpMachine(speed), package, "rows").run()
    assert settings == BASE
    assert choices[0].setting == {"max_rows": 8}
    assert choices[0].why.startswith("as before, for all together was no better; ")
    assert choices[-1].why.startswith("kept what was before")


def test_rows_are_not_more_than_people_can_wait_for(package: Package) -> None:
    speeds = {4: 20.0, 8: 40.0, 16: 60.0}  # of all rows: with sixteen each has less than four tokens a second

    def speed(settings: EngineSettings, workload: Workload) -> float:
        return speeds[settings.max_rows] if workload == "rows" else fast(settings, workload)

    settings, choices = search(MadeUpMachine(speed), package, "rows").run()
    assert settings == BASE
    assert "each row writes only 3.8 tokens a second" in why(choices, "rows")


def test_without_time_nothing_is_tried(package: Package) -> None:
    machine = MadeUpMachine(fast)
    settings, choices = search(machine, package, seconds=1.0).run()
    assert settings == BASE
    assert why(choices, "threads") == NO_TIME
    assert {settings for settings, _ in machine.asked} == {BASE}


def test_where_not_even_the_beginning_works_it_ends(package: Package) -> None:
    def speed(_settings: EngineSettings, _workload: Workload) -> float:
        raise TrialFailed("loading the model took more than 60 s")

    with pytest.raises(TrialFailed, match="more than 60 s"):
        search(MadeUpMachine(speed), package).run()


@pytest.mark.parametrize(
    ("speed", "prompt", "tried"),
    [
        (1500.0, 512, {64, 128, 256, 512}),
        (500.0, 256, {64, 128, 256}),
        (200.0, 128, {64, 128}),
        (100.0, 64, {128}),  # a prompt of 64 is read in one piece by all of them
    ],
)
def test_chunks_are_tried_as_far_as_prompts_can_tell_them_apart(
    package: Package, speed: float, prompt: int, tried: set[int]
) -> None:
    machine = MadeUpMachine(lambda _settings, workload: speed if workload == "prefill" else 100.0)
    _, [choice] = search(machine, package, "chunk").run()
    assert machine.orders[-1].prompt_tokens == prompt
    assert {settings.chunk_tokens for settings, _ in machine.asked} == tried
    told = f"not told apart: prompts of more than {prompt} tokens take too long here to be measured"
    assert (told in choice.why) == (prompt < 512)
    if prompt < 512:
        assert f"{2 * prompt}, " in choice.why or "512 not told apart" in choice.why


def test_a_chunk_that_reads_the_prompt_in_the_same_pieces_is_no_other_value(package: Package) -> None:
    device = Device(FOUR_CORES, 4.0, package, prompt_tokens=256)
    values = chunk_sizes(device, dataclasses.replace(BASE, chunk_tokens=512))
    assert [value["chunk_tokens"] for value in values] == [128, 64]
