"""Progress artifacts: how far a long step is, updated at a bounded rate."""

import logging
import time
from collections.abc import MutableMapping
from typing import Any, cast
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact

from soci_pipeline.builders.steps import BuildSteps
from soci_pipeline.log import Logger, logger
from tasks.clock import Clock
from tasks.outage import ERRORS

UPDATE_SECONDS = 2.0
# Prefect's client tries a call for a minute before it gives up, which holds the step up.
_QUIET_SECONDS = 300.0


class Progress:
    """One progress artifact of the run that this is used in; it appears with the first report."""

    def __init__(self, description: str, *, clock: Clock = time.monotonic) -> None:
        self._description = description
        self._clock = clock
        self._artifact: UUID | None = None
        self._shown = 0.0
        self._due = 0.0
        self._quiet_until = 0.0

    def report(self, done: int, total: int) -> None:
        """So much of so much is done; shown every two seconds at most, and when all is done. It never goes back."""
        percent = round(100.0 * done / total, 1) if total else 100.0
        now = self._clock()
        if now < self._quiet_until:
            return
        if self._artifact is not None and (percent <= self._shown or (percent < 100.0 and now < self._due)):
            return
        self._shown, self._due = max(percent, self._shown), now + UPDATE_SECONDS
        try:
            self._show(percent)
        except ERRORS as error:
            # It is only to be looked at: a server that is away fails no build.
            self._quiet_until = now + _QUIET_SECONDS
            logger().debug("progress could not be shown (%s)", type(error).__name__)

    def _show(self, percent: float) -> None:
        if self._artifact is None:
            self._artifact = cast("UUID", create_progress_artifact(percent, description=self._description))
        else:
            update_progress_artifact(self._artifact, percent)


class StepLog(logging.LoggerAdapter[Any]):
    """A logger that hands a build's lines on as they come, and reports the steps that it reads in them."""

    def __init__(self, log: Logger, progress: Progress) -> None:
        super().__init__(log, {})
        self._progress = progress
        self._steps = BuildSteps()

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Leave the line as it is: what it carries is added by the logger behind."""
        return msg, kwargs

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """As a logger's, which every other method calls."""
        super().log(level, msg, *args, **kwargs)
        found = self._steps.read(str(args[0]) if args else str(msg))
        if found is not None:
            self._progress.report(*found)
