"""What the server tells of power and heat: metrics, a part of `/status`, and a header while it is restrained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from edgeai.device.power import Power
from edgeai.device.power_governor import PowerGovernor

REASON_HEADER, DUTY_HEADER = "edgeai-restrained", "edgeai-duty"  # why answers are slower, or refused, now; how much

_GAUGES: Mapping[str, tuple[str, Callable[[Power], float | None]]] = {
    "edgeai_temperature_celsius": ("Of the processor.", lambda power: power.celsius),
    "edgeai_temperature_limit_celsius": ("Where the system begins to slow down.", lambda power: power.limit),
    "edgeai_throttled": ("Whether the processor is held back.", lambda power: float(bool(power.throttled))),
    "edgeai_on_battery": ("Whether nothing charges the battery.", lambda power: float(power.on_battery)),
    "edgeai_battery_percent": ("Charge of the battery.", lambda power: power.battery_percent),
    "edgeai_power_watts": ("Of a meter, or what the battery gives.", lambda power: power.watts),
}


class PowerCollector(Collector):
    """Asks the governor when somebody reads. What nothing on the device measures is left out."""

    def __init__(self, governor: PowerGovernor) -> None:
        self._governor = governor

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        restraint = self._governor.look()
        for name, (text, value) in _GAUGES.items():
            found = value(self._governor.power)
            if found is not None:
                yield GaugeMetricFamily(name, text, value=found)
        yield GaugeMetricFamily("edgeai_duty_ratio", "Share of time in which engines may work.", value=restraint.duty)
        yield GaugeMetricFamily("edgeai_batch_refused", "Whether batch work waits.", value=float(not restraint.batch))
        yield CounterMetricFamily("edgeai_energy_joules", "Taken while there was work.", value=self._governor.joules)


def power_headers(governor: PowerGovernor) -> dict[str, str]:
    """What every answer says while the server is restrained."""
    restraint = governor.look()
    return {REASON_HEADER: restraint.why, DUTY_HEADER: f"{restraint.duty:.2f}"} if restraint.why else {}


def device_state(governor: PowerGovernor, tokens: int) -> dict[str, Any]:
    """Readings and restraint for `/status`; `tokens` were written since the start."""
    restraint, power = governor.look(), governor.power
    return {
        "celsius": power.celsius,
        "limit_celsius": power.limit,
        "throttled": list(power.throttled),
        "on_battery": power.on_battery,
        "battery_percent": power.battery_percent,
        "watts": power.watts,
        "joules_per_token": round(governor.joules / tokens, 3) if governor.joules and tokens else None,
        "duty": round(restraint.duty, 3),
        "restrained": restraint.why,
    }


def idle_governor() -> PowerGovernor:
    """For a server that is not to be restrained: nothing is read, nothing is asked for."""
    return PowerGovernor(Power)
