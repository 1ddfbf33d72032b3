"""Prometheus metrics of embedding models and rerankers: what they counted themselves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from edgeai.server.model_pool import ModelPool


class EncoderCollector(Collector):
    """Reads the encoders' counts when somebody asks."""

    def __init__(self, models: ModelPool) -> None:
        self._models = models

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        labels = ["model_name"]
        requests = CounterMetricFamily("edgeai_encoder_requests", "Requests to encoders.", labels=labels)
        sequences = CounterMetricFamily("edgeai_encoder_sequences", "Texts, or pairs of them, computed.", labels=labels)
        tokens = CounterMetricFamily("edgeai_encoder_tokens", "Tokens computed by encoders.", labels=labels)
        waiting = GaugeMetricFamily("edgeai_encoder_requests_waiting", "Requests that are not complete.", labels=labels)
        for name, stats in self._models.encoder_stats().items():
            requests.add_metric([name], stats.requests)
            sequences.add_metric([name], stats.sequences)
            tokens.add_metric([name], stats.tokens)
            waiting.add_metric([name], stats.waiting)
        yield from (requests, sequences, tokens, waiting)
