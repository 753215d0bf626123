"""Store events with the runs that they start, and check that the outbox is writable."""

import json
import sqlite3
import time
from collections.abc import Sequence

from soci_pipeline.webhook.errors import OutboxUnavailable
from soci_pipeline.webhook.outbox.file import OutboxFile
from soci_pipeline.webhook.outbox.rows import DispatchState, StatusTarget, Stored
from soci_pipeline.webhook.rules import PlannedRun

_PROBE_BYTES = 64 << 10
_FAILED_SQL = "coalesce(state = 'failed' OR outcome IN ('FAILED', 'CRASHED', 'NOT_STARTED'), 0)"


class EventStorage(OutboxFile):
    """The receiver's access to the outbox."""

    _unstored_bytes = 0

    def store(
        self,
        digest: bytes,
        source: str,
        subject: str,
        runs: Sequence[PlannedRun],
        *,
        target: StatusTarget | None = None,
        again: bool = False,
    ) -> Stored:
        """Store an event (``digest`` is the SHA-256 of its identity) and its runs, unless it is stored already.

        A run with a subject supersedes the pending runs of the same subject. With ``again``, an event that is stored
        already gets a new run for each failed one, unless a newer run of the same subject has not failed.
        """
        where = json.dumps({"project": target.project, "commit": target.commit}) if target else None
        parameters = [json.dumps(run.parameters) for run in runs]
        now, received = self.now(), time.time()
        try:
            with self._transaction() as cursor:
                row = cursor.execute(
                    "INSERT INTO events (hash, source, subject, received, stored) VALUES (?, ?, ?, ?, ?) "
                    "ON CONFLICT (hash) DO NOTHING RETURNING id",
                    (digest, source, subject, received, now),
                ).fetchone()
                keys, new = [], []
                for run, text in zip(runs, parameters, strict=True):
                    first = f"{digest.hex()}-{run.rule}"
                    last = _last(cursor, digest, run) if row is None else None
                    starts = row is not None or (again and last is not None and _can_start_again(cursor, last))
                    key = first if last is None else last["key"]
                    if starts and last is not None:
                        key = _next_key(first, key)
                    keys.append(key)
                    new.append(starts)
                    if not starts:
                        continue
                    if run.subject is not None:
                        self._supersede(cursor, run.subject)
                    cursor.execute(
                        "INSERT INTO runs (event_id, source, rule, deployment, parameters, key, subject, received,"
                        " stored, state, next_attempt, target) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                        (row["id"] if last is None else last["event_id"], source, run.rule, run.deployment, text, key,
                         run.subject, received, now, DispatchState.PENDING, now, where),
                    )  # fmt: skip
        except OutboxUnavailable:
            self._unstored_bytes = max(self._unstored_bytes, sum(map(len, parameters)))
            raise
        return Stored(new=any(new), keys=tuple(keys))

    def has(self, digest: bytes) -> bool:
        """Whether an event is stored."""
        with self._transaction(write=False) as cursor:
            return _has(cursor, digest)

    def starts(self, digest: bytes, runs: Sequence[PlannedRun]) -> bool:
        """Whether storing an event with ``again`` would start a run: it is new, or one of its runs can be restarted."""
        with self._transaction(write=False) as cursor:
            if not _has(cursor, digest):
                return True
            found = (_last(cursor, digest, run) for run in runs)
            return any(last is not None and _can_start_again(cursor, last) for last in found)

    def check_writable(self) -> None:
        """Raise `OutboxUnavailable` if no event could be stored now, by writing to the file.

        It writes as many bytes as the largest event that could not be stored since the last success, because a small
        row may fit where that event does not.
        """
        size = max(_PROBE_BYTES, self._unstored_bytes)
        with self._transaction() as cursor:
            cursor.execute("INSERT OR REPLACE INTO probe (id, filler) VALUES (1, zeroblob(?))", (size,))
        with self._transaction() as cursor:
            cursor.execute("DELETE FROM probe")
        self._unstored_bytes = 0

    def _supersede(self, cursor: sqlite3.Cursor, subject: str) -> None:
        cursor.execute(
            "UPDATE runs SET state = ?, finished = ? WHERE subject = ? AND state = ?",
            (DispatchState.SUPERSEDED, self.now(), subject, DispatchState.PENDING),
        )


def _has(cursor: sqlite3.Cursor, digest: bytes) -> bool:
    return cursor.execute("SELECT 1 FROM events WHERE hash = ?", (digest,)).fetchone() is not None


def _last(cursor: sqlite3.Cursor, digest: bytes, run: PlannedRun) -> sqlite3.Row | None:
    """Return the newest run of an event for a rule."""
    row: sqlite3.Row | None = cursor.execute(
        "SELECT runs.* FROM runs JOIN events ON events.id = runs.event_id WHERE hash = ? AND rule = ?"
        " ORDER BY runs.id DESC LIMIT 1",
        (digest, run.rule),
    ).fetchone()
    return row


def _can_start_again(cursor: sqlite3.Cursor, last: sqlite3.Row) -> bool:
    """Whether a run and all later ones of its subject failed; otherwise an older commit would overtake a newer one."""
    newer = cursor.execute(
        f"SELECT count(*) AS n FROM runs WHERE id >= ? AND (id = ? OR subject = ?) AND NOT ({_FAILED_SQL})",  # noqa: S608 - a constant
        (last["id"], last["id"], last["subject"]),
    ).fetchone()
    return bool(newer["n"] == 0)


def _next_key(first: str, last: str) -> str:
    """Return the idempotency key of the next run of an event for a rule; rule names contain no dots."""
    number = last.removeprefix(first).removeprefix(".") or "1"
    return f"{first}.{int(number) + 1}"
