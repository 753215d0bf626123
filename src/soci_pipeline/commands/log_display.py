"""The log of a command: plain lines on standard error."""

import logging
import sys
from typing import TextIO

from soci_pipeline.text import for_terminal


class _Plain(logging.Formatter):
    """Format only the message; escape what a server, build or file name could use to control the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return for_terminal(super().format(record))


class _StandardError(logging.StreamHandler[TextIO]):
    """Write to the current standard error, because progress bars replace it while they are drawn."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)
        self.setFormatter(_Plain("%(message)s"))

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


def log_to_stderr(*, verbose: bool, quiet: bool) -> None:
    """Show the library's log; ``verbose`` adds every request, ``quiet`` shows only warnings."""
    logging.basicConfig(level=logging.WARNING, handlers=[_StandardError()])
    level = logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO
    logging.getLogger("soci_pipeline").setLevel(level)
