"""Hands the run's logger to the library, whose lines then appear in the Prefect UI while a step works.

An error that the library raises on purpose says itself what happened and what to do: Prefect's lines about it have that
in place of the traceback, unless the level is DEBUG.
"""

import contextlib
import logging
from collections.abc import Iterator

from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger

from soci_pipeline.errors import SociPipelineError
from soci_pipeline.log import LOGGER, Logger


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


def _without_traceback(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, SociPipelineError) and not logging.getLogger(record.name).isEnabledFor(logging.DEBUG):
        # Prefect's own words have the error as Python writes it, without the advice, or not at all.
        record.msg, record.args, record.exc_info = f"{record.getMessage()}\n{error}", None, None
    return True


for _name in ("prefect.flow_runs", "prefect.task_runs"):
    logging.getLogger(_name).addFilter(_without_traceback)
