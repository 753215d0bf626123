"""Counters and gauges of one receiver in the Prometheus text format (version 0.0.4)."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Family(NamedTuple):
    """The help text and label names of a metric."""

    text: str
    labels: tuple[str, ...] = ()


COUNTERS = {
    "soci_webhook_requests_total": Family("Requests to a source, by result.", ("result", "source")),
    "soci_webhook_dispatches_total": Family("Attempts to create a flow run in Prefect, by result.", ("result",)),
    "soci_webhook_outcomes_total": Family(
        "Flow runs that ended, by the type of their last state.", ("outcome", "rule")
    ),
    "soci_webhook_reports_total": Family("Commit statuses sent to a forge, by result.", ("result", "source")),
    "soci_webhook_queue_messages_total": Family("Messages of a queue, by result.", ("result", "source")),
}
GAUGES = {
    "soci_webhook_runs": Family("Runs in the outbox, by state.", ("state",)),
    "soci_webhook_oldest_pending_seconds": Family("Age of the oldest run not yet created in Prefect."),
    "soci_webhook_up": Family("Whether a background thread is alive.", ("thread",)),
}
Labels = tuple[str, ...]
"""The label values of a metric, in the order of its `Family`."""


class Metrics:
    """Thread-safe counters; the values of gauges are passed when the metrics are rendered.

    Each receiver has its own registry, so several in one process do not share counters.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._counters = {
            name: Counter(name, family.text, family.labels, registry=self._registry)
            for name, family in COUNTERS.items()
        }

    def count(self, name: str, **labels: str) -> None:
        """Increment a counter of `COUNTERS`; all of its labels are required."""
        self._counters[name].labels(**labels).inc()

    def value(self, name: str, **labels: str) -> float:
        """Return the current value of a counter."""
        return self._registry.get_sample_value(name, labels) or 0.0

    def text(self, gauges: Mapping[str, Mapping[Labels, float]]) -> str:
        """Render all counters and the given values of `GAUGES`."""
        return generate_latest(_Exposition(self._registry, gauges)).decode()


class _Exposition(Collector):
    """The metric families of one scrape."""

    def __init__(self, counters: CollectorRegistry, gauges: Mapping[str, Mapping[Labels, float]]) -> None:
        self._counters = counters
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        for family in self._counters.collect():
            # In this format the creation time of a counter would be a separate metric, which is not needed.
            family.samples = [each for each in family.samples if not each.name.endswith("_created")]
            yield family
        for name, (text, labels) in GAUGES.items():
            gauge = GaugeMetricFamily(name, text, labels=labels)
            for values, value in self._gauges.get(name, {}).items():
                gauge.add_metric(values, value)
            yield gauge
