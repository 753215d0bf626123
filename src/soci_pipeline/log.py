"""The logger of the current context: a Prefect task sets its run logger, a command its own."""

import logging
from contextvars import ContextVar

Logger = logging.Logger | logging.LoggerAdapter[logging.Logger]

LOGGER: ContextVar[Logger | None] = ContextVar("LOGGER", default=None)
"""Where progress goes. A Prefect task puts its run logger here, so that the library knows nothing of Prefect."""


def logger() -> Logger:
    """The logger of the current context."""
    return LOGGER.get() or logging.getLogger("soci_pipeline")
