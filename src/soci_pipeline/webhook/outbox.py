"""The outbox: an event is on disk before its sender is thanked, and stays until Prefect has taken its runs.

SQLite in WAL mode with full synchronisation. One row an event, unique by the hash of what was signed, and one row a run
that it starts. An event and its runs are one transaction; hashes are kept for good, so a replay is known at any time.
All methods may be called from any thread; each raises `OutboxUnavailable` where the disk or a lock does not let it.
"""

import contextlib
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from soci_pipeline.prefect_api import FINAL_STATES
from soci_pipeline.webhook.errors import OutboxUnavailable
from soci_pipeline.webhook.rules import PlannedRun

_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    id INTEGER PRIMARY KEY,
    hash BLOB NOT NULL UNIQUE,
    source TEXT NOT NULL,
    subject TEXT NOT NULL,
    received REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS runs (
    id INTEGER PRIMARY KEY,
    event_id INTEGER NOT NULL REFERENCES events (id),
    source TEXT NOT NULL,
    rule TEXT NOT NULL,
    deployment TEXT NOT NULL,
    parameters TEXT NOT NULL,
    key TEXT NOT NULL UNIQUE,
    subject TEXT,
    received REAL NOT NULL,
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    next_attempt REAL NOT NULL,
    flow_run_id TEXT,
    outcome TEXT,
    error TEXT,
    target TEXT,
    reported TEXT,
    report_attempts INTEGER NOT NULL DEFAULT 0,
    next_report REAL NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS looks (id INTEGER PRIMARY KEY CHECK (id = 1), at REAL NOT NULL);
CREATE INDEX IF NOT EXISTS runs_by_state ON runs (state, next_attempt);
CREATE INDEX IF NOT EXISTS runs_by_subject ON runs (subject);
"""


class DispatchState(StrEnum):
    """Where a run is on its way to Prefect; what happens there is its ``outcome``."""

    PENDING = "pending"
    DISPATCHING = "dispatching"
    DISPATCHED = "dispatched"
    SUPERSEDED = "superseded"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class StatusTarget:
    """Where a commit status goes: the repository (or the forge's id of it) and the commit."""

    project: str
    commit: str


@dataclass(frozen=True, slots=True)
class OutboxRun:
    """One row of a run. Times are seconds since the epoch."""

    id: int
    source: str
    rule: str
    deployment: str
    parameters: dict[str, Any]
    key: str
    received: float
    state: DispatchState
    attempts: int
    flow_run_id: str | None
    outcome: str | None
    error: str | None
    target: StatusTarget | None
    reported: str | None
    report_attempts: int


@dataclass(frozen=True, slots=True)
class Stored:
    """What storing did: ``new`` is false for an event that was there already."""

    new: bool
    keys: tuple[str, ...]


class Outbox:
    """One SQLite file; made with its folder if it is not there."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time, busy_timeout_s: float = 5.0) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            _make_private(path)
            self._connection = sqlite3.connect(
                path, timeout=busy_timeout_s, isolation_level=None, check_same_thread=False
            )
            self._connection.row_factory = sqlite3.Row
            self._connection.execute("PRAGMA journal_mode = WAL")
            # 202 is a promise: the row has to survive a power cut.
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute("PRAGMA foreign_keys = ON")
            self._connection.executescript(_SCHEMA)
        except (sqlite3.Error, OSError) as error:
            raise OutboxUnavailable(f"the outbox {path} cannot be opened: {error}") from error

    def close(self) -> None:
        """Close the file; what is stored stays."""
        with self._lock:
            self._connection.close()

    def __enter__(self) -> "Outbox":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def store(
        self,
        digest: bytes,
        source: str,
        subject: str,
        runs: Sequence[PlannedRun],
        *,
        target: StatusTarget | None = None,
    ) -> Stored:
        """Store an event (``digest`` is the SHA-256 of what identifies it) and its runs, unless it is there already.

        A run with a subject supersedes those of the same subject that were not handed to Prefect yet.
        """
        now = self._clock()
        keys = tuple(f"{digest.hex()}-{run.rule}" for run in runs)
        where = json.dumps({"project": target.project, "commit": target.commit}) if target else None
        with self._transaction() as cursor:
            row = cursor.execute(
                "INSERT INTO events (hash, source, subject, received) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (hash) DO NOTHING RETURNING id",
                (digest, source, subject, now),
            ).fetchone()
            if row is None:
                return Stored(new=False, keys=keys)
            for run, key in zip(runs, keys, strict=True):
                if run.subject is not None:
                    self._supersede(cursor, run.subject)
                cursor.execute(
                    "INSERT INTO runs (event_id, source, rule, deployment, parameters, key, subject, received, state,"
                    " next_attempt, target) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (row["id"], source, run.rule, run.deployment, json.dumps(run.parameters), key, run.subject, now,
                     DispatchState.PENDING, now, where),
                )  # fmt: skip
        return Stored(new=True, keys=keys)

    def has(self, digest: bytes) -> bool:
        """Whether an event was stored before."""
        with self._transaction(write=False) as cursor:
            return cursor.execute("SELECT 1 FROM events WHERE hash = ?", (digest,)).fetchone() is not None

    def reclaim(self, delay_s: float = 0.0) -> int:
        """Runs that are on their way while nobody hands them over are pending again, due after ``delay_s``.

        So it is at the start, when the last receiver was killed, and where the disk was full just when Prefect had
        answered. Handing one over twice is harmless, because Prefect knows its idempotency key.
        """
        with self._transaction() as cursor:
            return cursor.execute(
                "UPDATE runs SET state = ?, next_attempt = ? WHERE state = ?",
                (DispatchState.PENDING, self._clock() + delay_s, DispatchState.DISPATCHING),
            ).rowcount

    def claim(self) -> OutboxRun | None:
        """Take the oldest run that is due; it is ``dispatching`` until one of the next three is called."""
        if not self._select("state = 'pending' AND next_attempt <= ?", 1, self._clock()):
            return None
        with self._transaction() as cursor:
            row = cursor.execute(
                "UPDATE runs SET state = ? WHERE id = (SELECT id FROM runs WHERE state = ? AND next_attempt <= ?"
                " ORDER BY id LIMIT 1) RETURNING *",
                (DispatchState.DISPATCHING, DispatchState.PENDING, self._clock()),
            ).fetchone()
        return _run(row) if row is not None else None

    def dispatched(self, run: OutboxRun, flow_run_id: str) -> None:
        """Prefect has the run."""
        self._update(
            run, state=DispatchState.DISPATCHED, flow_run_id=flow_run_id, attempts=run.attempts + 1, error=None
        )

    def postpone(self, run: OutboxRun, delay_s: float, error: str) -> None:
        """Try again after ``delay_s``, unless a newer event took its place meanwhile."""
        with self._transaction() as cursor:
            cursor.execute(
                "UPDATE runs SET attempts = attempts + 1, error = ?, next_attempt = ?, state = CASE WHEN EXISTS"
                " (SELECT 1 FROM runs AS newer WHERE newer.subject = runs.subject AND newer.id > runs.id)"
                " THEN ? ELSE ? END WHERE id = ?",
                (error, self._clock() + delay_s, DispatchState.SUPERSEDED, DispatchState.PENDING, run.id),
            )

    def fail(self, run: OutboxRun, error: str) -> None:
        """Give the run up."""
        self._update(run, state=DispatchState.FAILED, attempts=run.attempts + 1, error=error, outcome="NOT_STARTED")

    def unfinished(self, limit: int = 200, *, after: int = 0) -> list[OutboxRun]:
        """Dispatched runs whose outcome is not final yet, oldest first; those behind the run with the id ``after``."""
        condition = "id > ? AND state = 'dispatched' AND (outcome IS NULL OR outcome NOT IN (" + _FINAL_SQL + "))"
        return self._select(condition, limit, after)

    def set_outcome(self, run: OutboxRun, outcome: str) -> None:
        """What Prefect says of the run: the type of its state."""
        self._update(run, outcome=outcome, next_report=self._clock(), report_attempts=0)

    def to_report(self, limit: int = 50) -> list[OutboxRun]:
        """Runs whose commit status is not what the forge was told last, and due."""
        condition = (
            "target IS NOT NULL AND state IN ('dispatched', 'failed') AND coalesce(outcome, 'SCHEDULED')"
            " IS NOT coalesce(reported, '') AND next_report <= ?"
        )
        return self._select(condition, limit, self._clock())

    def reported(self, run: OutboxRun, outcome: str) -> None:
        """The forge has the status for ``outcome`` (or will never take it)."""
        self._update(run, reported=outcome, report_attempts=0)

    def postpone_report(self, run: OutboxRun, delay_s: float) -> None:
        """Try to report again after ``delay_s``."""
        self._update(run, report_attempts=run.report_attempts + 1, next_report=self._clock() + delay_s)

    def check_writable(self) -> None:
        """Raise `OutboxUnavailable` where nothing could be stored just now; only a write can tell."""
        with self._transaction() as cursor:
            cursor.execute(
                "INSERT INTO looks (id, at) VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET at = excluded.at",
                (self._clock(),),
            )

    def counts(self) -> dict[str, int]:
        """How many runs are in each state."""
        with self._transaction(write=False) as cursor:
            rows = cursor.execute("SELECT state, count(*) AS n FROM runs GROUP BY state").fetchall()
        return {state.value: 0 for state in DispatchState} | {row["state"]: row["n"] for row in rows}

    def oldest_pending_s(self) -> float:
        """The age of the oldest run that Prefect does not have yet; 0 where there is none."""
        with self._transaction(write=False) as cursor:
            row = cursor.execute(
                "SELECT min(received) AS t FROM runs WHERE state IN ('pending', 'dispatching')"
            ).fetchone()
        return 0.0 if row["t"] is None else max(0.0, self._clock() - row["t"])

    def run(self, key: str) -> OutboxRun | None:
        """The run of an idempotency key."""
        found = self._select("key = ?", 1, key)
        return found[0] if found else None

    def _supersede(self, cursor: sqlite3.Cursor, subject: str) -> None:
        cursor.execute(
            "UPDATE runs SET state = ? WHERE subject = ? AND state = ?",
            (DispatchState.SUPERSEDED, subject, DispatchState.PENDING),
        )

    def _select(self, condition: str, limit: int, *values: object) -> list[OutboxRun]:
        with self._transaction(write=False) as cursor:
            rows = cursor.execute(f"SELECT * FROM runs WHERE {condition} ORDER BY id LIMIT ?", (*values, limit))  # noqa: S608 - conditions are constants of this module
            return [_run(row) for row in rows.fetchall()]

    def _update(self, run: OutboxRun, **columns: object) -> None:
        assignments = ", ".join(f"{name} = ?" for name in columns)
        with self._transaction() as cursor:
            cursor.execute(f"UPDATE runs SET {assignments} WHERE id = ?", (*columns.values(), run.id))  # noqa: S608 - names of columns from this module

    @contextlib.contextmanager
    def _transaction(self, *, write: bool = True) -> Iterator[sqlite3.Cursor]:
        with self._lock:
            try:
                cursor = self._connection.cursor()
                # In WAL mode a reader waits for nobody; a writer says at once that it will write.
                cursor.execute("BEGIN IMMEDIATE" if write else "BEGIN")
                try:
                    yield cursor
                    cursor.execute("COMMIT")
                except BaseException:
                    with contextlib.suppress(sqlite3.Error):
                        cursor.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise OutboxUnavailable(f"the outbox cannot be written: {error}") from error


def _make_private(path: Path) -> None:
    # SQLite gives the files that it puts beside this one the mode of this one, at the moment that it makes them.
    path.touch(mode=0o600)
    path.chmod(0o600)
    for end in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + end).chmod(0o600)


FINAL_OUTCOMES = FINAL_STATES | {"NOT_STARTED", "UNKNOWN"}
_FINAL_SQL = ", ".join(f"'{each}'" for each in sorted(FINAL_OUTCOMES))


def _run(row: sqlite3.Row) -> OutboxRun:
    target = json.loads(row["target"]) if row["target"] else None
    return OutboxRun(
        id=row["id"],
        source=row["source"],
        rule=row["rule"],
        deployment=row["deployment"],
        parameters=json.loads(row["parameters"]),
        key=row["key"],
        received=row["received"],
        state=DispatchState(row["state"]),
        attempts=row["attempts"],
        flow_run_id=row["flow_run_id"],
        outcome=row["outcome"],
        error=row["error"],
        target=StatusTarget(**target) if target else None,
        reported=row["reported"],
        report_attempts=row["report_attempts"],
    )
