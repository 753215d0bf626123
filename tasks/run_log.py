"""Hands the run's logger to the library, whose lines then appear in the Prefect UI while a step works."""

import contextlib
import logging
from collections.abc import Iterator

from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger

from soci_pipeline.process import LOGGER, Logger


@contextlib.contextmanager
def run_log() -> Iterator[Logger]:
    """The logger of the task run or flow run, for this block; the library's own outside of one."""
    try:
        found: Logger = get_run_logger()
    except MissingContextError:
        found = logging.getLogger("soci_pipeline")
    token = LOGGER.set(found)
    try:
        yield found
    finally:
        LOGGER.reset(token)
