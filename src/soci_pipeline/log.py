"""The logger of the current context: a Prefect task sets its run logger, a command its own."""

import logging
from contextvars import ContextVar

Logger = logging.Logger | logging.LoggerAdapter[logging.Logger]

LOGGER: ContextVar[Logger | None] = ContextVar("LOGGER", default=None)
"""Logger of the current context. Prefect tasks set their run logger here, which keeps Prefect out of the library."""


def logger() -> Logger:
    """Return the logger of the current context."""
    return LOGGER.get() or logging.getLogger("soci_pipeline")
