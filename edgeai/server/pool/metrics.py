"""Prometheus metrics of the pool: which models are in memory, and how often they came and had to go."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from edgeai.server.model_pool import ModelPool


class PoolCollector(Collector):
    """Reads the pool's counts when somebody asks."""

    def __init__(self, models: ModelPool) -> None:
        self._models = models

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        residents = self._models.residents
        loaded = GaugeMetricFamily("edgeai_model_loaded", "Whether a model is in memory.", labels=["model_name"])
        in_use = GaugeMetricFamily("edgeai_model_leases", "Requests that use it or wait for it.", labels=["model_name"])
        seconds = GaugeMetricFamily("edgeai_model_load_seconds", "What loading it took.", labels=["model_name"])
        for name in self._models.names.packages():
            resident = residents.get(name)
            loaded.add_metric([name], float(resident is not None and resident.loaded))
            if resident is not None:
                in_use.add_metric([name], resident.leases)
                seconds.add_metric([name], resident.load_seconds)
        loads = CounterMetricFamily("edgeai_model_loads", "Models that were brought into memory.")
        loads.add_metric([], residents.loads)
        evictions = CounterMetricFamily("edgeai_model_evictions", "Models unloaded because others needed their memory.")
        evictions.add_metric([], residents.evictions)
        yield from (loaded, in_use, seconds, loads, evictions)
