"""Shorten a build's output for people: one line for each step, everything else only with ``--verbose``.

BuildKit prints many lines for each step (``#7 [builder 2/4] RUN make``, ``#7 0.51 …``, ``#7 DONE 4.2s``), the classic
builder some (``Step 2/4 : RUN make``, `` ---> 0123``). Output of other programs is shown unchanged. Nothing is shown
from the first error on, because the build's error repeats its last lines.
"""

import logging
import re
from collections.abc import MutableMapping
from typing import Any

from soci_pipeline.log import Logger

_WORK = re.compile(r"#(?P<work>\d{1,6}) (?P<said>.*)", re.DOTALL)
_STEP = re.compile(r"\[[^\]]{0,200}?\d{1,4}/\d{1,4}\](?= )")
_OVER = re.compile(r"DONE (?P<seconds>\d{1,9}\.\d)s")
CLASSIC_STEP = re.compile(r"Step \d{1,4}/\d{1,4} : ")
"""The first line of a step of the classic builder."""
# A step of BuildKit; buildx itself; and the place in the Dockerfile, which comes before buildx's own line.
_FAILURE = re.compile(r"#\d{1,6} ERROR|ERROR: |\S*Dockerfile\S*:\d{1,6}\Z")
_LONG_SECONDS = 10.0


class StepLines:
    """Selects the lines of one build to show."""

    def __init__(self) -> None:
        self._steps: dict[str, str] = {}
        self._is_classic = False
        self._has_failed = False

    def shown(self, line: str) -> str | None:
        """Return the line to show; None if it is a detail."""
        self._has_failed = self._has_failed or _FAILURE.match(line) is not None
        if self._has_failed:
            return None
        if CLASSIC_STEP.match(line):
            self._is_classic = True
            return line
        work = _WORK.match(line)
        if work is None:
            return None if self._is_classic else line
        if work["said"].startswith("WARN"):
            return line
        number, said = work["work"], work["said"]
        if (step := _STEP.match(said)) and number not in self._steps:
            # BuildKit repeats the name when it returns to a step after output of parallel ones.
            self._steps[number] = step[0]
            return f"  {said}"
        over = _OVER.match(said)
        if over and number in self._steps and float(over["seconds"]) >= _LONG_SECONDS:
            return f"  {self._steps[number]} took {over['seconds']} s"
        return None


class StepLineLog(logging.LoggerAdapter[Any]):
    """A logger adapter that shows the build lines selected by `StepLines`, and logs the others as debug messages."""

    def __init__(self, log: Logger) -> None:
        super().__init__(log, {})
        self._lines = StepLines()

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Return the message unchanged."""
        return msg, kwargs

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log a message; lines at INFO that are details become DEBUG."""
        if level != logging.INFO:
            super().log(level, msg, *args, **kwargs)
            return
        line = str(msg) % args if args else str(msg)
        shown = self._lines.shown(line)
        super().log(logging.DEBUG if shown is None else level, "%s", line if shown is None else shown, **kwargs)
