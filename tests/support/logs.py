"""Send the library's log to a test's own handler."""

import contextlib
import logging
from collections.abc import Iterator

from soci_pipeline.log import LOGGER


@contextlib.contextmanager
def logging_to(handler: logging.Handler) -> Iterator[None]:
    """Pass messages logged in the block, from INFO on, to a handler."""
    sink = logging.getLogger("of a test")
    sink.setLevel(logging.INFO)
    sink.addHandler(handler)
    token = LOGGER.set(sink)
    try:
        yield
    finally:
        LOGGER.reset(token)
        sink.removeHandler(handler)
