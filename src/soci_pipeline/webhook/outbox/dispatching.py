"""Runs that are waiting to be dispatched to Prefect."""

from soci_pipeline.webhook.outbox.file import OutboxFile
from soci_pipeline.webhook.outbox.rows import DispatchState, OutboxRun, readable

# The maximum for any wait of this release: a Retry-After counts for at most an hour.
_LONGEST_WAIT_S = 2 * 3600.0


class DispatchQueue(OutboxFile):
    """The dispatcher's access to the outbox."""

    def reclaim(self, delay_s: float = 0.0) -> int:
        """Set interrupted dispatches back to pending, due after ``delay_s``; return how many.

        A dispatch is interrupted if the last receiver was killed, or if the disk was full when Prefect's response
        arrived. Dispatching a run twice is harmless, because Prefect knows its idempotency key. Waits that exceed the
        maximum of this release, which an older release may have written, end now.
        """
        with self._transaction() as cursor:
            now = self.now()
            latest = now + _LONGEST_WAIT_S
            cursor.execute("UPDATE runs SET next_attempt = ? WHERE next_attempt > ?", (now, latest))
            cursor.execute("UPDATE runs SET next_report = ? WHERE next_report > ?", (now, latest))
            return cursor.execute(
                "UPDATE runs SET state = ?, next_attempt = ? WHERE state = ?",
                (DispatchState.PENDING, now + delay_s, DispatchState.DISPATCHING),
            ).rowcount

    def claim(self) -> OutboxRun | None:
        """Claim the oldest due run; it stays ``dispatching`` until `dispatched`, `postpone` or `fail` is called."""
        while self._is_any_due():
            with self._transaction() as cursor:
                row = cursor.execute(
                    "UPDATE runs SET state = ? WHERE id = (SELECT id FROM runs WHERE state = ? AND next_attempt <= ?"
                    " ORDER BY id LIMIT 1) RETURNING *",
                    (DispatchState.DISPATCHING, DispatchState.PENDING, self.now()),
                ).fetchone()
                run = None if row is None else readable(row)
                if row is not None and run is None:
                    # A damaged row must not block the runs after it.
                    cursor.execute(
                        "UPDATE runs SET state = ?, outcome = 'NOT_STARTED', reported = 'NOT_STARTED', finished = ?,"
                        " error = 'the row is damaged' WHERE id = ?",
                        (DispatchState.FAILED, self.now(), row["id"]),
                    )
            if run is not None:
                return run
        return None

    def _is_any_due(self) -> bool:
        with self._transaction(write=False) as cursor:
            query = "SELECT 1 FROM runs WHERE state = 'pending' AND next_attempt <= ? LIMIT 1"
            return cursor.execute(query, (self.now(),)).fetchone() is not None

    def dispatched(self, run: OutboxRun, flow_run_id: str) -> None:
        """Mark the run as accepted by Prefect."""
        self._update(
            run, state=DispatchState.DISPATCHED, flow_run_id=flow_run_id, attempts=run.attempts + 1, error=None
        )

    def postpone(self, run: OutboxRun, delay_s: float, error: str) -> None:
        """Retry after ``delay_s``, unless a newer run has superseded this one."""
        with self._transaction() as cursor:
            cursor.execute(
                "UPDATE runs SET attempts = attempts + 1, error = ?, next_attempt = ?, state = ? WHERE id = ?",
                (error, self.now() + delay_s, DispatchState.PENDING, run.id),
            )
            cursor.execute(
                "UPDATE runs SET state = ?, finished = ? WHERE id = ? AND EXISTS"
                " (SELECT 1 FROM runs AS newer WHERE newer.subject = runs.subject AND newer.id > runs.id)",
                (DispatchState.SUPERSEDED, self.now(), run.id),
            )

    def fail(self, run: OutboxRun, error: str) -> None:
        """Mark the run as failed; it is not retried."""
        self._update(
            run,
            state=DispatchState.FAILED,
            attempts=run.attempts + 1,
            error=error,
            outcome="NOT_STARTED",
            finished=self.now(),
        )

    def counts(self) -> dict[str, int]:
        """Return the number of runs in each state."""
        with self._transaction(write=False) as cursor:
            rows = cursor.execute("SELECT state, count(*) AS n FROM runs GROUP BY state").fetchall()
        return {state.value: 0 for state in DispatchState} | {row["state"]: row["n"] for row in rows}

    def oldest_pending_s(self) -> float:
        """Return the age in seconds of the oldest run that is not dispatched yet; 0 if there is none."""
        with self._transaction(write=False) as cursor:
            row = cursor.execute(
                "SELECT min(stored) AS t FROM runs WHERE state IN ('pending', 'dispatching')"
            ).fetchone()
        return 0.0 if row["t"] is None else max(0.0, self.now() - row["t"])
