"""What a run's log says of an error: a foreseen one speaks for itself, any other needs its traceback."""

import logging

import pytest
from prefect import flow, task

from soci_pipeline.errors import SourceError
from tasks.run_log import run_log


@task
def failing_step(error: Exception) -> None:
    with run_log():
        raise error


@flow
def failing(error: Exception) -> None:
    failing_step(error)


def logged_of(error: Exception, caplog: pytest.LogCaptureFixture, level: int = logging.INFO) -> str:
    """All that a run that ends with the error has logged, as a handler writes it."""
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        caplog.set_level(level, name)
    with pytest.raises(type(error)):
        failing(error)
    return caplog.text


def test_a_foreseen_error_is_logged_without_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    said = logged_of(SourceError("no such branch:\n  - 100 %s of main", advice="Push it first."), caplog)
    assert "\nno such branch:\n  - 100 %s of main\n  next: Push it first.\n" in said
    assert "Traceback" not in said


def test_at_debug_level_its_traceback_is_there(caplog: pytest.LogCaptureFixture) -> None:
    said = logged_of(SourceError("there is no such branch"), caplog, logging.DEBUG)
    assert "Traceback" in said


def test_an_error_that_nobody_foresaw_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    said = logged_of(ZeroDivisionError("a defect"), caplog)
    assert said.count("Traceback") >= 2
