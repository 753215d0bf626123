"""Counters and gauges in Prometheus' text format (version 0.0.4); the few that the receiver has need no library."""

import threading
from collections import defaultdict
from collections.abc import Mapping

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

COUNTERS = {
    "soci_webhook_requests_total": "Requests to a source, by what became of them.",
    "soci_webhook_dispatches_total": "Attempts to hand a run to Prefect, by result.",
    "soci_webhook_outcomes_total": "Runs that ended, by the type of their last state.",
    "soci_webhook_reports_total": "Commit statuses sent to a forge, by result.",
    "soci_webhook_queue_messages_total": "Messages of a queue, by what became of them.",
}
GAUGES = {
    "soci_webhook_runs": "Runs in the outbox, by state.",
    "soci_webhook_oldest_pending_seconds": "Age of the oldest run that Prefect does not have yet.",
    "soci_webhook_up": "Whether a background thread is alive.",
}
Labels = tuple[tuple[str, str], ...]


class Metrics:
    """Counters that any thread may raise; gauges are given when the text is written."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[str, dict[Labels, float]] = {name: defaultdict(float) for name in COUNTERS}

    def count(self, name: str, **labels: str) -> None:
        """Raise a counter of `COUNTERS` by one."""
        with self._lock:
            self._values[name][tuple(sorted(labels.items()))] += 1

    def value(self, name: str, **labels: str) -> float:
        """What a counter has reached."""
        with self._lock:
            return self._values[name].get(tuple(sorted(labels.items())), 0.0)

    def text(self, gauges: Mapping[str, Mapping[Labels, float]]) -> str:
        """The exposition: every counter, and the gauges given."""
        with self._lock:
            counters = {name: dict(values) for name, values in self._values.items()}
        lines: list[str] = []
        for name, text in COUNTERS.items():
            lines += _family(name, "counter", text, counters[name])
        for name, text in GAUGES.items():
            lines += _family(name, "gauge", text, gauges.get(name, {}))
        return "\n".join(lines) + "\n"


def _family(name: str, kind: str, text: str, values: Mapping[Labels, float]) -> list[str]:
    lines = [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
    for labels, value in sorted(values.items()):
        inside = ",".join(f'{key}="{_escaped(each)}"' for key, each in labels)
        lines.append(f"{name}{{{inside}}} {value:g}" if inside else f"{name} {value:g}")
    return lines


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
