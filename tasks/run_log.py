"""Make the run's logger the library's, so that its lines appear in the Prefect UI while a task runs.

An error that the library raises on purpose already contains the cause and the next step. It is logged once, without a
traceback, when it ends a task or the run: `run_log` does that, and the filter at the end of this module drops or
shortens Prefect's lines about the same error. At DEBUG level Prefect's lines are unchanged.
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
# The first lines of recently logged errors: Prefect's line about a final state contains only the error's text.
_RECENT: deque[str] = deque(maxlen=50)


@contextlib.contextmanager
def run_log() -> Iterator[Logger]:
    """Yield the logger of the task run or flow run; the library's own outside a run.

    An expected error that leaves the block is logged, except a temporary one that ends a task: Prefect logs that, since
    it knows whether the task is retried.
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
    """Remove the characters that Prefect's line about a final state escapes or writes differently."""
    return text.translate(_QUOTES)


def _deduplicate_error(record: logging.LogRecord) -> bool:
    """Whether to keep a line of Prefect's; the first one about an expected error gets its text, not a traceback."""
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
    logging.getLogger(_name).addFilter(_deduplicate_error)
