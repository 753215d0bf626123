"""Progress artifacts for long steps, updated at a limited rate."""

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
# Prefect's client retries a call for a minute before it fails, which delays the step.
_QUIET_SECONDS = 300.0


class Progress:
    """One progress artifact of the current run; it is created by the first report."""

    def __init__(self, description: str, *, clock: Clock = time.monotonic) -> None:
        self._description = description
        self._clock = clock
        self._artifact: UUID | None = None
        self._shown = 0.0
        self._due = 0.0
        self._quiet_until = 0.0

    def report(self, done: int, total: int) -> None:
        """Report progress; shown at most every two seconds and at the end, and never decreasing."""
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
            # Progress is optional: an unavailable server must not fail a build.
            self._quiet_until = now + _QUIET_SECONDS
            logger().debug("cannot show progress (%s)", type(error).__name__)

    def _show(self, percent: float) -> None:
        if self._artifact is None:
            self._artifact = cast("UUID", create_progress_artifact(percent, description=self._description))
        else:
            update_progress_artifact(self._artifact, percent)


class StepLog(logging.LoggerAdapter[Any]):
    """A logger adapter that passes on a build's lines and reports the steps found in them."""

    def __init__(self, log: Logger, progress: Progress) -> None:
        super().__init__(log, {})
        self._progress = progress
        self._steps = BuildSteps()

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Return the line unchanged; the underlying logger adds the rest."""
        return msg, kwargs

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log a message, and report progress if it contains a step."""
        super().log(level, msg, *args, **kwargs)
        found = self._steps.read(str(args[0]) if args else str(msg))
        if found is not None:
            self._progress.report(*found)
