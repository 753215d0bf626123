"""Outcomes of dispatched runs, and the commit statuses that report them."""

from soci_pipeline.prefect_rest.runs import FINAL_STATES
from soci_pipeline.webhook.outbox.file import OutboxFile
from soci_pipeline.webhook.outbox.rows import FINAL_OUTCOMES, OutboxRun

_ENDED_SQL = ", ".join(f"'{each}'" for each in sorted(FINAL_STATES))
_FINAL_SQL = ", ".join(f"'{each}'" for each in sorted(FINAL_OUTCOMES))


class Statuses(OutboxFile):
    """The outcome watcher's access to the outbox."""

    def unfinished(self, limit: int = 200, *, after: int = 0) -> list[OutboxRun]:
        """Return dispatched runs without a final outcome, oldest first, from those after the ID ``after``."""
        condition = "id > ? AND state = 'dispatched' AND (outcome IS NULL OR outcome NOT IN (" + _FINAL_SQL + "))"
        return self._select(condition, limit, after)

    def ended(self, limit: int, *, after: int = 0, within_s: float) -> list[OutboxRun]:
        """Return runs whose outcome became final in the last ``within_s`` and may still change; like `unfinished`."""
        condition = "id > ? AND state = 'dispatched' AND finished >= ? AND outcome IN (" + _ENDED_SQL + ")"
        return self._select(condition, limit, after, self.now() - within_s)

    def set_outcome(self, run: OutboxRun, outcome: str) -> None:
        """Store the outcome of the run: the type of its state in Prefect."""
        now = self.now()
        finished = now if outcome in FINAL_OUTCOMES else None
        self._update(run, outcome=outcome, finished=finished, next_report=now, report_attempts=0)

    def to_report(self, limit: int = 50) -> list[OutboxRun]:
        """Return the runs whose outcome differs from the last reported one and whose report is due."""
        condition = (
            "target IS NOT NULL AND state IN ('dispatched', 'failed') AND coalesce(outcome, 'SCHEDULED')"
            " IS NOT coalesce(reported, '') AND next_report <= ?"
        )
        return self._select(condition, limit, self.now())

    def reported(self, run: OutboxRun, outcome: str) -> None:
        """Record that the forge has the status for ``outcome``, or that reporting it was given up."""
        self._update(run, reported=outcome, report_attempts=0)

    def postpone_report(self, run: OutboxRun, delay_s: float) -> None:
        """Retry the report after ``delay_s``."""
        self._update(run, report_attempts=run.report_attempts + 1, next_report=self.now() + delay_s)
