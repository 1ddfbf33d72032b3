"""The power is cut at random moments: of first and later starts, serving, imports, updates and a new system's trial."""

from __future__ import annotations

import itertools
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from boot_guest import DAMAGE_OTHER, FORGET_TWIN, IMPORT_TWIN, KEEP, UPDATE, in_background, passed
from boot_lab import Lab, ask_briefly, no_failed_units, require

LATE = 1.2  # a cut comes up to so many times later than what it is to hit usually takes


@dataclass
class Cuts:
    """The card under test, and what was said to be safe on it."""

    lab: Lab
    rng: random.Random
    usual: float = 0.0  # seconds of a start
    running: str = "a"  # the slot before the cut
    kept: int = 0
    seconds: dict[str, float] = field(default_factory=dict)  # that an import, an update take
    survived: Counter[str] = field(default_factory=Counter)

    def prepare(self) -> None:
        """Put a second model's bundle and a newer system's onto the card, and see how long they usually take."""
        lab, machine = self.lab, self.lab.machine
        lab.give_key()
        self.usual = lab.start()
        lab.trust_publisher()
        machine.send(lab.model, "/data/twin.bundle")
        machine.send(lab.update.bundle, "/data/system.bundle")
        for name, script in (("import", IMPORT_TWIN), ("update", UPDATE)):
            started = time.monotonic()
            machine.run(script, within=1200)
            self.seconds[name] = time.monotonic() - started
        machine.run(f"{FORGET_TWIN}\nsync")
        self.restart_cleanly()
        lab.note(
            "seconds that an import and an update take, cut or not", {k: round(v) for k, v in self.seconds.items()}
        )

    def restart_cleanly(self) -> None:
        """Start the new system, and wait until it is the good one."""
        self.lab.machine.restart(within=600)
        self.running = self.lab.settled(within=600)["running"]

    def pause(self, longest: float) -> None:
        """Wait for a random moment."""
        time.sleep(self.rng.uniform(0, longest * LATE))

    def cut_within(self, longest: float) -> int:
        """Cut once, at a random moment."""
        self.pause(longest)
        self.lab.machine.cut()
        return 1

    def cut_starts(self, usual: float) -> int:
        """Start it up to three times in a row, and never let it get ready; how often that was."""
        machine, times = self.lab.machine, self.rng.randint(1, 3)
        for _ in range(times):
            machine.start()
            self.pause(usual)
            machine.cut()
        return times

    def first_start(self) -> int:
        """A card that was just written; the one under test waits meanwhile, cut off the power as well."""
        machine, card = self.lab.machine, self.lab.machine.disk
        machine.cut()
        machine.fresh_card()
        self.lab.give_key()
        times = self.cut_starts(self.usual * 1.5)
        self.lab.start(within=400)
        ask_briefly(machine)
        size = int(machine.run("df -B1 --output=size /data | tail -n1"))
        require(size > 0.6 * machine.disk.stat().st_size, f"the data partition did not grow: {size}")
        no_failed_units(machine)
        machine.cut()
        machine.disk.unlink()
        machine.disk = card
        return times

    def later_start(self) -> int:
        """A card that has started before."""
        self.lab.machine.cut()
        return self.cut_starts(self.usual)

    def serving(self) -> int:
        """While it is ready, and something is written without pause; a number and a key are said to be safe."""
        self.kept += 1
        self.lab.machine.run(KEEP.format(number=self.kept))
        return self.cut_within(3.0)

    def importing(self) -> int:
        """While a model comes in."""
        self.lab.machine.run(f"{FORGET_TWIN}\n{in_background(IMPORT_TWIN, 'imported')}")
        return self.cut_within(self.seconds["import"])

    def updating(self) -> int:
        """While a system comes in, over one that has half of its blocks damaged."""
        self.lab.machine.run(DAMAGE_OTHER, within=300)
        self.lab.machine.run(in_background(UPDATE, "updated"))
        return self.cut_within(self.seconds["update"])

    def on_trial(self) -> int:
        """While a system that just came in starts for the first time."""
        machine = self.lab.machine
        machine.run(f"{UPDATE}\nsync", within=1200)
        machine.run("systemctl reboot", check=False)
        return self.cut_within(self.usual * 1.2)

    def check(self, moment: str) -> None:
        """What must hold after the power came back. Raises RuntimeError."""
        machine = self.lab.machine
        status = self.lab.settled(within=600)
        kept = int(machine.run("cat /data/keep 2>/dev/null || echo 0"))
        require(kept == self.kept, f"what was said to be safe is lost: {kept}, not {self.kept}")
        keys = machine.run("edgeai keys list")
        require(not self.kept or f"cut-{self.kept}" in keys, f"the key that was made before cut {self.kept} is lost")
        if moment == "importing":
            self.check_import()
        if moment == "on_trial" or (moment == "updating" and passed(machine, "updated")):
            require(status["running"] != self.running, f"a system that was said to be installed is lost: {status}")
        self.running = status["running"]
        ask_briefly(machine)
        no_failed_units(machine)

    def check_import(self) -> None:
        """The model is whole, or it is not there and comes in at the next try."""
        machine = self.lab.machine
        there = "twin" in machine.run("ls /data/edgeai/models").split()
        require(there or not passed(machine, "imported"), "a model that was said to be installed is lost")
        if not there:
            machine.run(IMPORT_TWIN, within=1200)
        machine.run("cd / && edgeai verify twin", within=300)

    @property
    def moments(self) -> dict[str, Callable[[], int]]:
        """What is under way when the power goes."""
        return {
            "first_start": self.first_start,
            "later_start": self.later_start,
            "serving": self.serving,
            "importing": self.importing,
            "updating": self.updating,
            "on_trial": self.on_trial,
        }


def power_cuts(lab: Lab) -> None:
    """Each moment in turn; each next start gets ready and answers, and nothing that was said to be safe is lost."""
    lab.note("seed", lab.seed)
    cuts = Cuts(lab, random.Random(lab.seed))
    cuts.prepare()
    for name, moment in itertools.cycle(cuts.moments.items()):
        times = moment()
        cuts.usual = min(cuts.usual, lab.start(within=400))  # the first one may have been on a busy machine
        try:
            cuts.check(name)
        except RuntimeError as error:
            raise RuntimeError(f"after {cuts.survived.total()} cuts, {name}: {error}") from error
        cuts.survived[name] += times
        lab.figures["power cuts survived"] = f"{cuts.survived.total()}: {dict(cuts.survived)}"
        unsafe = lab.machine.forgotten
        lab.figures["cuts with writes that were not flushed"] = f"{sum(map(bool, unsafe))} of {len(unsafe)}"
        print(f"  {lab.figures['power cuts survived']}", file=sys.stderr, flush=True)
        if cuts.survived.total() >= lab.cuts:
            return
