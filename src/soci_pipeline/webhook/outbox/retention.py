"""Delete old runs and event hashes."""

from soci_pipeline.webhook.outbox.file import OutboxFile

_DELETED_AT_ONCE = 1000


class Deletion(OutboxFile):
    """The cleaner's access to the outbox."""

    def delete_finished(self, older_than_s: float) -> int:
        """Delete a batch of runs that ended ``older_than_s`` ago or earlier and are reported; return how many."""
        condition = (
            "finished <= ? AND (target IS NULL OR state = 'superseded'"
            " OR coalesce(outcome, 'SCHEDULED') IS coalesce(reported, ''))"
        )
        with self._transaction() as cursor:
            deleted = cursor.execute(
                f"DELETE FROM runs WHERE id IN (SELECT id FROM runs WHERE {condition} LIMIT ?) RETURNING event_id",  # noqa: S608 - a constant
                (self.now() - older_than_s, _DELETED_AT_ONCE),
            ).fetchall()
            # Keep only the hash of an event without runs.
            cursor.executemany(
                "UPDATE events SET source = '', subject = '' WHERE id = ?"
                " AND NOT EXISTS (SELECT 1 FROM runs WHERE event_id = events.id)",
                [(row["event_id"],) for row in deleted],
            )
        return len(deleted)

    def delete_hashes(self, older_than_s: float) -> int:
        """Delete a batch of event hashes stored ``older_than_s`` ago or earlier that have no runs; return how many."""
        with self._transaction() as cursor:
            return cursor.execute(
                "DELETE FROM events WHERE id IN (SELECT id FROM events WHERE stored <= ?"
                " AND NOT EXISTS (SELECT 1 FROM runs WHERE event_id = events.id) LIMIT ?)",
                (self.now() - older_than_s, _DELETED_AT_ONCE),
            ).rowcount
