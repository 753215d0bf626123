"""The run's logger reaches the library, and is gone afterwards."""

import logging

import pytest

from soci_pipeline.log import LOGGER, logger
from tasks.run_log import run_log


def test_outside_of_a_run_the_library_logs_as_it_does_without_prefect(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "soci_pipeline"), run_log():
        logger().info("a line")
    assert "a line" in caplog.text
    assert LOGGER.get() is None
