"""Where a command's log goes: to standard error, as plain lines."""

import logging
import sys
from typing import TextIO

from soci_pipeline.text import for_terminal


class _Plain(logging.Formatter):
    """The message alone; what a server, a build or a file name puts into it changes no terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return for_terminal(super().format(record))


class _StandardError(logging.StreamHandler[TextIO]):
    """Writes to what standard error is at the time, since bars put themselves before it while they are drawn."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)
        self.setFormatter(_Plain("%(message)s"))

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


def log_to_stderr(*, verbose: bool, quiet: bool) -> None:
    """Show the library's log; ``verbose`` adds every request, ``quiet`` leaves warnings alone."""
    logging.basicConfig(level=logging.WARNING, handlers=[_StandardError()])
    level = logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO
    logging.getLogger("soci_pipeline").setLevel(level)
