"""Token buckets, the text of metrics, and log lines."""

import io
import json
import logging

import pytest

from soci_pipeline.retry import delay_s
from soci_pipeline.webhook.json_logs import JsonFormatter, log
from soci_pipeline.webhook.limits import RateLimit
from soci_pipeline.webhook.loop import Loop
from soci_pipeline.webhook.metrics import COUNTERS, GAUGES, Metrics


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
    metrics.count("soci_webhook_requests_total", source='a"b\\\n')
    text = metrics.text({"soci_webhook_runs": {(("state", "pending"),): 2.0}})
    assert 'soci_webhook_requests_total{source="a\\"b\\\\\\n"} 1' in text
    assert 'soci_webhook_runs{state="pending"} 2' in text
    assert text.count("# TYPE") == len(COUNTERS) + len(GAUGES)


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
