"""Token buckets, the text of metrics, and log lines."""

import io
import json
import logging

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from soci_pipeline.retry import delay_s
from soci_pipeline.webhook.json_logs import JsonFormatter, log
from soci_pipeline.webhook.limits import RateLimit
from soci_pipeline.webhook.loop import Loop
from soci_pipeline.webhook.metrics import COUNTERS, GAUGES, Labels, Metrics


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    now = [0.0]
    limit = RateLimit(60, clock=lambda: now[0])
    assert [limit.wait_s("a") for _ in range(60)] == [0.0] * 60
    assert limit.wait_s("a") == pytest.approx(1.0)
    assert limit.wait_s("b") == 0.0
    now[0] = 1.0
    assert limit.wait_s("a") == 0.0
    assert limit.wait_s("a") > 0


def test_a_flood_of_addresses_takes_no_more_than_a_bound_of_memory() -> None:
    limit = RateLimit(1)
    for number in range(10_000):
        limit.wait_s(number)
    assert len(limit._buckets) <= 4096


def test_metrics_are_escaped_and_complete() -> None:
    metrics = Metrics()
    metrics.count("soci_webhook_requests_total", source='a"b\\\n', result="stored")
    text = metrics.text({"soci_webhook_runs": {("pending",): 2.0}})
    assert 'soci_webhook_requests_total{result="stored",source="a\\"b\\\\\\n"} 1.0\n' in text
    assert 'soci_webhook_runs{state="pending"} 2.0\n' in text
    assert text.count("# TYPE") == len(COUNTERS) + len(GAUGES)


def test_a_parser_reads_back_names_types_help_labels_and_values() -> None:
    metrics = Metrics()
    for _ in range(3):
        metrics.count("soci_webhook_requests_total", source='a"b\\\n', result="stored")
    gauges: dict[str, dict[Labels, float]] = {
        "soci_webhook_up": {("dispatch",): 1.0},
        "soci_webhook_oldest_pending_seconds": {(): 0.25},
    }
    families = {each.name: each for each in text_string_to_metric_families(metrics.text(gauges))}
    # The parser leaves the suffix of a counter out of the family's name.
    expected = {name.removesuffix("_total"): ("counter", each.text) for name, each in COUNTERS.items()}
    expected |= {name: ("gauge", each.text) for name, each in GAUGES.items()}
    assert {name: (each.type, each.documentation) for name, each in families.items()} == expected
    samples = {each.name: (each.labels, each.value) for family in families.values() for each in family.samples}
    assert samples == {
        "soci_webhook_requests_total": ({"result": "stored", "source": 'a"b\\\n'}, 3.0),
        "soci_webhook_up": ({"thread": "dispatch"}, 1.0),
        "soci_webhook_oldest_pending_seconds": ({}, 0.25),
    }


def test_receivers_in_one_process_count_apart() -> None:
    one, other = Metrics(), Metrics()
    one.count("soci_webhook_dispatches_total", result="dispatched")
    assert one.value("soci_webhook_dispatches_total", result="dispatched") == 1
    assert other.value("soci_webhook_dispatches_total", result="dispatched") == 0
    assert "soci_webhook" not in generate_latest().decode()


def test_a_log_line_is_one_object_and_its_fields_cannot_replace_the_fixed_ones() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("soci_pipeline")
    logger.addHandler(handler)
    try:
        log("a\nmessage", level=logging.WARNING, subject="x\ny", level_="z", absent=None)
    finally:
        logger.removeHandler(handler)
    (line,) = stream.getvalue().splitlines()
    document = json.loads(line)
    assert (document["message"], document["level"], document["subject"]) == ("a\nmessage", "warning", "x\ny")
    assert "absent" not in document


def test_back_off_grows_to_its_bound_with_jitter() -> None:
    assert 0.25 <= delay_s(1) <= 0.5
    assert 30 <= delay_s(1000) <= 60
    assert len({delay_s(5) for _ in range(10)}) > 1


def test_a_loop_outlives_an_unforeseen_error(caplog: pytest.LogCaptureFixture) -> None:
    calls: list[int] = []

    def step() -> float:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("unforeseen")
        return 60

    loop = Loop("test", step)
    loop.start()
    while len(calls) < 2:
        loop.wake()
    assert loop.alive
    loop.stop()
    assert not loop.alive
    assert "unforeseen" in caplog.text
