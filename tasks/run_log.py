"""Hands the run's logger to the library, whose lines then appear in the Prefect UI while a step works.

An error that the library raises on purpose says itself what happened and what to do. It is logged once, without a
traceback, where it ends a step or the run: `run_log` does that, and the filter at the end drops or shortens what
Prefect says of the same error. At DEBUG level Prefect's lines stay as they are.
"""

import contextlib
import logging
from collections import deque
from collections.abc import Iterator
from weakref import WeakSet

from prefect.context import TaskRunContext
from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger

from soci_pipeline.errors import SociPipelineError
from soci_pipeline.log import LOGGER, Logger

_FINISHED = "Finished in state Failed("
_EXHAUSTED = "Retries are exhausted"
_QUOTES = str.maketrans("", "", "'\"\\")
_LOGGED: "WeakSet[SociPipelineError]" = WeakSet()
# The first lines of what was logged last: Prefect's line about a final state has the text of the error only.
_RECENT: deque[str] = deque(maxlen=50)


@contextlib.contextmanager
def run_log() -> Iterator[Logger]:
    """The logger of the task run or flow run, for this block; the library's own outside of one.

    An expected error that leaves the block is logged. One that is temporary and ends a task is left to Prefect, which
    knows whether the task is tried again.
    """
    try:
        found: Logger = get_run_logger()
    except MissingContextError:
        found = logging.getLogger("soci_pipeline")
        in_run = False
    else:
        in_run = True
    token = LOGGER.set(found)
    try:
        yield found
    except SociPipelineError as error:
        if in_run and not (error.temporary and TaskRunContext.get()):
            _log_once(found, error)
        raise
    finally:
        LOGGER.reset(token)


def _log_once(log: Logger, error: SociPipelineError) -> None:
    if error not in _LOGGED:
        _note(error)
        log.error("Failed with %s:\n%s", type(error).__name__, error)


def _note(error: SociPipelineError) -> None:
    _LOGGED.add(error)
    if first := error.reason.partition("\n")[0]:
        _RECENT.append(_without_quotes(first))


def _without_quotes(text: str) -> str:
    """A text without what Prefect's line about a final state escapes, or writes in another way."""
    return text.translate(_QUOTES)


def _says_it_once(record: logging.LogRecord) -> bool:
    """Whether a line of Prefect's is needed; the first one about an expected error has its text, not a traceback."""
    if logging.getLogger(record.name).isEnabledFor(logging.DEBUG):
        return True
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, SociPipelineError):
        if error in _LOGGED:
            return False
        _note(error)
        tries = f" ({_EXHAUSTED.lower()})" if _EXHAUSTED in record.getMessage() else ""
        record.msg, record.args, record.exc_info = f"Failed with {type(error).__name__}{tries}:\n{error}", None, None
        return True
    text = record.getMessage()
    if not text.startswith(_FINISHED):
        return True
    said = _without_quotes(text)
    return not any(line in said for line in tuple(_RECENT))


for _name in ("prefect.flow_runs", "prefect.task_runs", "prefect.engine"):
    logging.getLogger(_name).addFilter(_says_it_once)
