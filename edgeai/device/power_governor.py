"""Slows down before the board has to: a duty cycle that follows the temperature, and rules for the last of a battery.

Heat: a board that throttles is slow at its firmware's will, for everybody, and ages. So work is thinned out as soon as
the limit is near: after each step the engine rests for as long as `duty` asks. The duty falls by a fifth at each look
while the processor is within `NEAR` degrees of the limit, and comes back by a tenth while it is cooler than that by
`AWAY`, which settles without a model of the board's cooling. The number of sequences that run at once follows the duty:
a few answers at a bearable pace get done before a battery is empty, many slow ones do not.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from edgeai.device.power import Power, read_power

LOOK_SECONDS = 2.0  # between looks, while there is work; the heat of a board takes longer to change
NEAR, AWAY = 3.0, 6.0  # degrees below the limit
LIMIT = 80.0  # degrees where the device names none: where a Raspberry Pi begins to slow down
LESS, MORE, LEAST = 0.8, 1.1, 0.2
LOW, VERY_LOW, EMPTY = 20.0, 10.0, 3.0  # percent of a battery that nothing charges
LOW_DUTY, VERY_LOW_DUTY, WEAK_DUTY = 0.6, 0.3, 0.5
WEAK = "under-voltage"

log = logging.getLogger("edgeai.power")


@dataclass(frozen=True, slots=True)
class Restraint:
    """How much is given up: the share of time in which the engine may work, and whom it still works for."""

    duty: float = 1.0
    batch: bool = True  # whether work that can wait is done
    refusing: bool = False  # whether new requests are refused
    reasons: tuple[str, ...] = ()

    def rows(self, most: int) -> int:
        """How many of `most` sequences may run at once: the same share, so that those that do keep their pace."""
        return max(1, math.ceil(most * self.duty))

    @property
    def why(self) -> str:
        """The reasons in words; empty without any."""
        return ", ".join(self.reasons)


class PowerGovernor:
    """Looks at the device now and then, and says how to go on. Any thread may ask."""

    def __init__(self, read: Callable[[], Power] = read_power, clock: Callable[[], float] = time.monotonic) -> None:
        self._read, self._clock = read, clock
        self._cool_duty = 1.0
        self._lock = threading.Lock()
        self._looked: float | None = None  # when the device was last read
        self.power = Power()
        self.restraint = Restraint()
        self.joules = 0.0  # taken while there was work, as far as something measures it

    def look(self) -> Restraint:
        """The restraint of now; the device is read where the last reading is old."""
        with self._lock:
            now = self._clock()
            since = None if self._looked is None else now - self._looked
            if since is None or since >= LOOK_SECONDS:
                self._looked = now
                self._take(self._read(), since)
            return self.restraint

    def rest(self, worked: float) -> float:
        """Seconds to rest after `worked` seconds of work."""
        return worked * (1 / self.look().duty - 1)

    def _take(self, power: Power, since: float | None) -> None:
        """A new reading, so many seconds after the last one."""
        if since is not None and since < 2 * LOOK_SECONDS:  # else the engine was at rest meanwhile
            self.joules += _taken(self.power, power, since)
        before, self.power, self.restraint = self.restraint, power, self._decide(power)
        if self.restraint.reasons != before.reasons:
            log.warning("power: %s", self.restraint.why or "no restraint")

    def _decide(self, power: Power) -> Restraint:
        duty, reasons = self._heat(power), []
        if duty < 1:
            reasons.append("heat")
        if WEAK in power.throttled:
            duty = min(duty, WEAK_DUTY)
            reasons.append(WEAK)
        charge = power.battery_percent if power.on_battery else None
        if charge is not None and charge <= LOW:
            duty = min(duty, VERY_LOW_DUTY if charge <= VERY_LOW else LOW_DUTY)
            reasons.append(f"battery at {charge:.0f} %")
        low = charge is not None and charge <= LOW
        return Restraint(duty, not low, charge is not None and charge <= EMPTY, tuple(reasons))

    def _heat(self, power: Power) -> float:
        if power.celsius is None:
            return 1.0
        below = (power.limit or LIMIT) - power.celsius
        held_back = any(why != WEAK for why in power.throttled)
        if below < NEAR or held_back:
            self._cool_duty = max(LEAST, self._cool_duty * LESS)
        elif below > AWAY:
            self._cool_duty = min(1.0, self._cool_duty * MORE)
        return self._cool_duty


def _taken(before: Power, now: Power, seconds: float) -> float:
    """Joules between two readings; a meter that began again at zero counts from there. 0 where nothing measures."""
    if before.joules is not None and now.joules is not None:
        return now.joules - before.joules if now.joules >= before.joules else now.joules
    return (now.watts or 0.0) * seconds
