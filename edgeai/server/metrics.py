"""Prometheus metrics: vLLM's names with the prefix `edgeai_`, in a registry of their own. No text, no addresses."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from edgeai.engine.request import EngineStats
from edgeai.server.encoder_metrics import EncoderCollector
from edgeai.server.model_pool import ModelPool
from edgeai.server.pool.metrics import PoolCollector

# Seconds. Slow boards read long prompts for minutes; quick ones write a token within milliseconds.
_LATENCIES = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_TOKEN_LATENCIES = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.3, 0.5, 1, 2.5)

_GAUGES = {
    "edgeai_num_requests_running": "Sequences that are being read or written.",
    "edgeai_num_requests_waiting": "Sequences that wait for a slot.",
    "edgeai_rows": "Sequences that may run at once; fewer while memory or power is scarce.",
    "edgeai_kv_cache_usage_perc": "Used part of the KV cache's budget, 0 to 1.",
    "edgeai_kv_cache_used_bytes": "Used bytes of the KV cache's budget.",
    "edgeai_kv_cache_written_bytes": "Those of them that are not only reserved, and so in memory.",
    "edgeai_kv_cache_budget_bytes": "The KV cache's budget in bytes, less while memory is scarce.",
    "edgeai_memory_level": "How much is given up for memory: 0 nothing, 4 new requests are refused.",
    "edgeai_memory_available_bytes": "What was left of the memory that this server may take, when it looked last.",
}
_QUEUES = ("edgeai_num_requests_queued", "Sequences that wait for a slot, by class.")
_COUNTERS = {
    "edgeai_prompt_tokens": "Prompt tokens of all requests.",
    "edgeai_generation_tokens": "Tokens written.",
    "edgeai_prefix_cache_hits": "Prompt tokens that came from the prefix cache.",
    "edgeai_spec_decode_num_draft_tokens": "Tokens that were drafted from the text so far.",
    "edgeai_spec_decode_num_accepted_tokens": "Drafted tokens that were right.",
    "edgeai_memory_kills": "Processes that the kernel killed for memory in this server's control group.",
    "edgeai_num_requests_expired": "Requests that were refused, or answers that ended, for their deadline.",
    "edgeai_num_preemptions": "Sequences that lost their slot for a while and were read again.",
}


@dataclass(frozen=True, slots=True)
class ModelMetrics:
    """The latencies of one model."""

    ttft: Histogram
    gaps: Histogram

    def first_token(self, seconds: float) -> None:
        """A request's first token came this long after the request."""
        self.ttft.observe(seconds)

    def token_gap(self, seconds: float) -> None:
        """A sequence's next token came this long after the one before."""
        self.gaps.observe(seconds)


class Metrics:
    """All metrics of one server; the engines are asked when somebody reads."""

    def __init__(self, models: ModelPool) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "edgeai_http_requests", "Answered requests.", ["route", "status"], registry=self.registry
        )
        self._durations = Histogram(
            "edgeai_http_request_duration_seconds",
            "From a request's head to the end of its answer.",
            ["route"],
            buckets=_LATENCIES,
            registry=self.registry,
        )
        self._ttft = Histogram(
            "edgeai_time_to_first_token_seconds",
            "From a request to its first token.",
            ["model_name"],
            buckets=_LATENCIES,
            registry=self.registry,
        )
        self._gaps = Histogram(
            "edgeai_inter_token_latency_seconds",
            "Between two tokens of a sequence.",
            ["model_name"],
            buckets=_TOKEN_LATENCIES,
            registry=self.registry,
        )
        self.registry.register(_EngineCollector(models))
        self.registry.register(EncoderCollector(models))
        self.registry.register(PoolCollector(models))

    def of_model(self, name: str) -> ModelMetrics:
        """Where the latencies of model `name` are noted."""
        return ModelMetrics(self._ttft.labels(name), self._gaps.labels(name))

    def request(self, route: str, status: int, seconds: float) -> None:
        """A request has been answered; status 499 when its client left first."""
        self._requests.labels(route, str(status)).inc()
        self._durations.labels(route).observe(seconds)

    def render(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self.registry)


class _EngineCollector(Collector):
    """Reads the engines' own counts, so that nothing is counted twice."""

    def __init__(self, models: ModelPool) -> None:
        self._models = models

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        gauges = {name: GaugeMetricFamily(name, text, labels=["model_name"]) for name, text in _GAUGES.items()}
        counters = {name: CounterMetricFamily(name, text, labels=["model_name"]) for name, text in _COUNTERS.items()}
        queues = GaugeMetricFamily(*_QUEUES, labels=["model_name", "priority"])
        for model, stats in self._models.stats().items():
            for priority, count in stats.queued.items():
                queues.add_metric([model, priority], count)
            values = _values(stats)
            for name, family in (gauges | counters).items():
                family.add_metric([model], values[name])
        yield queues
        yield from gauges.values()
        yield from counters.values()


def _values(stats: EngineStats) -> dict[str, float]:
    return {
        "edgeai_num_requests_running": stats.running,
        "edgeai_num_requests_waiting": stats.waiting,
        "edgeai_rows": stats.rows,
        "edgeai_kv_cache_usage_perc": stats.kv_used_bytes / max(1, stats.kv_budget_bytes),
        "edgeai_kv_cache_used_bytes": stats.kv_used_bytes,
        "edgeai_kv_cache_written_bytes": stats.kv_written_bytes,
        "edgeai_kv_cache_budget_bytes": stats.kv_budget_bytes,
        "edgeai_prompt_tokens": stats.prompt_tokens,
        "edgeai_generation_tokens": stats.generated_tokens,
        "edgeai_prefix_cache_hits": stats.prefix_cache_hit_tokens,
        "edgeai_spec_decode_num_draft_tokens": stats.drafted_tokens,
        "edgeai_spec_decode_num_accepted_tokens": stats.accepted_tokens,
        "edgeai_num_preemptions": stats.preemptions,
        "edgeai_num_requests_expired": stats.expired,
        "edgeai_memory_level": stats.memory.level,
        "edgeai_memory_available_bytes": math.nan if stats.memory.available is None else stats.memory.available,
        "edgeai_memory_kills": stats.memory.kills,
    }
