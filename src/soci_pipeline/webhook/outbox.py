"""The outbox: an event is on disk before its sender is thanked, and stays until Prefect has taken its runs.

SQLite in WAL mode with full synchronisation. One row an event, unique by the hash of what was signed, and one row a run
that it starts. An event and its runs are one transaction. `delete_finished` removes what ended long ago; a hash stays,
so a replay is recognised at any time, unless `delete_hashes` is called.

Waits and ages are measured in *running time*: the seconds during which a receiver had the file open, kept in the file.
The clock of the machine may jump either way and changes none of them.
All methods may be called from any thread; each raises `OutboxUnavailable` where the disk or a lock does not let it.
"""

import contextlib
import json
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from soci_pipeline.prefect_rest.runs import FINAL_STATES
from soci_pipeline.webhook.errors import OutboxUnavailable
from soci_pipeline.webhook.json_logs import log
from soci_pipeline.webhook.rules import PlannedRun

# One tuple of statements a version; `PRAGMA user_version` is how many of them a file has. Never edit one: append.
_MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE IF NOT EXISTS events (
    id INTEGER PRIMARY KEY,
    hash BLOB NOT NULL UNIQUE,
    source TEXT NOT NULL,
    subject TEXT NOT NULL,
    received REAL NOT NULL
)""",
        """CREATE TABLE IF NOT EXISTS runs (
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
)""",
        "CREATE INDEX IF NOT EXISTS runs_by_state ON runs (state, next_attempt)",
        "CREATE INDEX IF NOT EXISTS runs_by_subject ON runs (subject)",
    ),
    (
        # From here on `next_attempt`, `next_report`, `stored` and `finished` are running time.
        "ALTER TABLE events ADD COLUMN stored REAL NOT NULL DEFAULT 0",
        "ALTER TABLE runs ADD COLUMN stored REAL NOT NULL DEFAULT 0",
        "ALTER TABLE runs ADD COLUMN finished REAL",
        "UPDATE runs SET next_attempt = 0, next_report = 0",
        "UPDATE runs SET finished = 0 WHERE state IN ('superseded', 'failed')"
        " OR outcome IN ('CANCELLED', 'COMPLETED', 'CRASHED', 'FAILED', 'NOT_STARTED', 'UNKNOWN')",
        "CREATE TABLE running_time (id INTEGER PRIMARY KEY CHECK (id = 1), seconds REAL NOT NULL)",
        "INSERT INTO running_time VALUES (1, 0)",
        "CREATE TABLE probe (id INTEGER PRIMARY KEY CHECK (id = 1), filler BLOB NOT NULL)",
        "CREATE INDEX runs_by_event ON runs (event_id)",
        "CREATE INDEX runs_by_finish ON runs (finished)",
    ),
)
_NEWER = "Start the release that wrote it, or name another outbox in the configuration."
_PROBE_BYTES = 64 << 10
_DELETED_AT_ONCE = 1000
# Nothing waits longer: a Retry-After counts for an hour at most.
_LONGEST_WAIT_S = 2 * 3600.0


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
    """One row of a run. ``received`` is in seconds since the epoch, ``stored`` in seconds of running time."""

    id: int
    source: str
    rule: str
    deployment: str
    parameters: dict[str, Any]
    key: str
    received: float
    stored: float
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
    """One SQLite file; made with its folder if it is not there, and migrated if an older release made it.

    ``clock`` is in monotonic seconds.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic, busy_timeout_s: float = 5.0) -> None:
        self._lock = threading.Lock()
        self._unstored_bytes = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            _make_private(path)
            self._connection = sqlite3.connect(
                path, timeout=busy_timeout_s, isolation_level=None, check_same_thread=False
            )
            self._connection.row_factory = sqlite3.Row
            # A text that is damaged must not keep the other columns from being read.
            self._connection.text_factory = lambda text: text.decode(errors="replace")
            self._connection.execute("PRAGMA journal_mode = WAL")
            # 202 is a promise: the row has to survive a power cut.
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute("PRAGMA foreign_keys = ON")
            # No temporary file, which would have the mode of the umask.
            self._connection.execute("PRAGMA temp_store = MEMORY")
            _migrate(self._connection, path)
            before = self._connection.execute("SELECT seconds FROM running_time").fetchone()
        except (sqlite3.Error, OSError, UnicodeDecodeError) as error:
            raise OutboxUnavailable(f"the outbox {path} cannot be opened: {error}") from error
        self._running = RunningTime(before["seconds"], clock)

    def now(self) -> float:
        """The running time, in seconds."""
        return self._running.seconds()

    def age_s(self, run: OutboxRun) -> float:
        """For how many seconds of running time the run has been stored."""
        return self.now() - run.stored

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
        again: bool = False,
    ) -> Stored:
        """Store an event (``digest`` is the SHA-256 of what identifies it) and its runs, unless it is there already.

        A run with a subject supersedes those of the same subject that were not handed to Prefect yet. With ``again``,
        an event that is there already gets a new run for each one that failed, unless a newer event of the same subject
        has one that did not.
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
        """Whether an event was stored before."""
        with self._transaction(write=False) as cursor:
            return _has(cursor, digest)

    def starts(self, digest: bytes, runs: Sequence[PlannedRun]) -> bool:
        """Whether storing an event ``again`` would start something: it is new, or one of its runs failed."""
        with self._transaction(write=False) as cursor:
            if not _has(cursor, digest):
                return True
            found = (_last(cursor, digest, run) for run in runs)
            return any(last is not None and _can_start_again(cursor, last) for last in found)

    def reclaim(self, delay_s: float = 0.0) -> int:
        """Runs that are on their way while nobody hands them over are pending again, due after ``delay_s``.

        So it is at the start, when the last receiver was killed, and where the disk was full just when Prefect had
        answered. Handing one over twice is harmless, because Prefect knows its idempotency key. A wait that is longer
        than any of this release, as an older one may have written it, ends now.
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
        """Take the oldest run that is due; it is ``dispatching`` until one of the next three is called."""
        while self._is_any_due():
            with self._transaction() as cursor:
                row = cursor.execute(
                    "UPDATE runs SET state = ? WHERE id = (SELECT id FROM runs WHERE state = ? AND next_attempt <= ?"
                    " ORDER BY id LIMIT 1) RETURNING *",
                    (DispatchState.DISPATCHING, DispatchState.PENDING, self.now()),
                ).fetchone()
                run = None if row is None else _readable(row)
                if row is not None and run is None:
                    # It must not keep those behind it from being handed over.
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
        """Prefect has the run."""
        self._update(
            run, state=DispatchState.DISPATCHED, flow_run_id=flow_run_id, attempts=run.attempts + 1, error=None
        )

    def postpone(self, run: OutboxRun, delay_s: float, error: str) -> None:
        """Try again after ``delay_s``, unless a newer event took its place meanwhile."""
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
        """Give the run up."""
        self._update(
            run,
            state=DispatchState.FAILED,
            attempts=run.attempts + 1,
            error=error,
            outcome="NOT_STARTED",
            finished=self.now(),
        )

    def unfinished(self, limit: int = 200, *, after: int = 0) -> list[OutboxRun]:
        """Dispatched runs whose outcome is not final yet, oldest first; those behind the run with the id ``after``."""
        condition = "id > ? AND state = 'dispatched' AND (outcome IS NULL OR outcome NOT IN (" + _FINAL_SQL + "))"
        return self._select(condition, limit, after)

    def ended(self, limit: int, *, after: int = 0, within_s: float) -> list[OutboxRun]:
        """Runs whose outcome became final in the last ``within_s`` and may still change; as `unfinished` otherwise."""
        condition = "id > ? AND state = 'dispatched' AND finished >= ? AND outcome IN (" + _ENDED_SQL + ")"
        return self._select(condition, limit, after, self.now() - within_s)

    def set_outcome(self, run: OutboxRun, outcome: str) -> None:
        """What Prefect says of the run: the type of its state."""
        now = self.now()
        finished = now if outcome in FINAL_OUTCOMES else None
        self._update(run, outcome=outcome, finished=finished, next_report=now, report_attempts=0)

    def to_report(self, limit: int = 50) -> list[OutboxRun]:
        """Runs whose commit status is not what the forge was told last, and due."""
        condition = (
            "target IS NOT NULL AND state IN ('dispatched', 'failed') AND coalesce(outcome, 'SCHEDULED')"
            " IS NOT coalesce(reported, '') AND next_report <= ?"
        )
        return self._select(condition, limit, self.now())

    def reported(self, run: OutboxRun, outcome: str) -> None:
        """The forge has the status for ``outcome`` (or will never take it)."""
        self._update(run, reported=outcome, report_attempts=0)

    def postpone_report(self, run: OutboxRun, delay_s: float) -> None:
        """Try to report again after ``delay_s``."""
        self._update(run, report_attempts=run.report_attempts + 1, next_report=self.now() + delay_s)

    def delete_finished(self, older_than_s: float) -> int:
        """Delete some of the runs that ended so long ago, once their outcome is reported; returns how many."""
        condition = (
            "finished <= ? AND (target IS NULL OR state = 'superseded'"
            " OR coalesce(outcome, 'SCHEDULED') IS coalesce(reported, ''))"
        )
        with self._transaction() as cursor:
            deleted = cursor.execute(
                f"DELETE FROM runs WHERE id IN (SELECT id FROM runs WHERE {condition} LIMIT ?) RETURNING event_id",  # noqa: S608 - a constant
                (self.now() - older_than_s, _DELETED_AT_ONCE),
            ).fetchall()
            # What stays of the event is its hash.
            cursor.executemany(
                "UPDATE events SET source = '', subject = '' WHERE id = ?"
                " AND NOT EXISTS (SELECT 1 FROM runs WHERE event_id = events.id)",
                [(row["event_id"],) for row in deleted],
            )
        return len(deleted)

    def delete_hashes(self, older_than_s: float) -> int:
        """Delete some of the hashes of events that were stored so long ago and have no run any more."""
        with self._transaction() as cursor:
            return cursor.execute(
                "DELETE FROM events WHERE id IN (SELECT id FROM events WHERE stored <= ?"
                " AND NOT EXISTS (SELECT 1 FROM runs WHERE event_id = events.id) LIMIT ?)",
                (self.now() - older_than_s, _DELETED_AT_ONCE),
            ).rowcount

    def check_writable(self) -> None:
        """Raise `OutboxUnavailable` where no event could be stored now; only a write can tell.

        It writes as much as the largest event that could not be stored since the last success: what a small row finds
        room for may be too little.
        """
        size = max(_PROBE_BYTES, self._unstored_bytes)
        with self._transaction() as cursor:
            cursor.execute("INSERT OR REPLACE INTO probe (id, filler) VALUES (1, zeroblob(?))", (size,))
        with self._transaction() as cursor:
            cursor.execute("DELETE FROM probe")
        self._unstored_bytes = 0

    def counts(self) -> dict[str, int]:
        """How many runs are in each state."""
        with self._transaction(write=False) as cursor:
            rows = cursor.execute("SELECT state, count(*) AS n FROM runs GROUP BY state").fetchall()
        return {state.value: 0 for state in DispatchState} | {row["state"]: row["n"] for row in rows}

    def oldest_pending_s(self) -> float:
        """The age of the oldest run that Prefect does not have yet; 0 where there is none."""
        with self._transaction(write=False) as cursor:
            row = cursor.execute(
                "SELECT min(stored) AS t FROM runs WHERE state IN ('pending', 'dispatching')"
            ).fetchone()
        return 0.0 if row["t"] is None else max(0.0, self.now() - row["t"])

    def run(self, key: str) -> OutboxRun | None:
        """The run of an idempotency key."""
        found = self._select("key = ?", 1, key)
        return found[0] if found else None

    def _supersede(self, cursor: sqlite3.Cursor, subject: str) -> None:
        cursor.execute(
            "UPDATE runs SET state = ?, finished = ? WHERE subject = ? AND state = ?",
            (DispatchState.SUPERSEDED, self.now(), subject, DispatchState.PENDING),
        )

    def _select(self, condition: str, limit: int, *values: object) -> list[OutboxRun]:
        with self._transaction(write=False) as cursor:
            rows = cursor.execute(f"SELECT * FROM runs WHERE {condition} ORDER BY id LIMIT ?", (*values, limit))  # noqa: S608 - conditions are constants of this module
            return [run for row in rows.fetchall() if (run := _readable(row)) is not None]

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
                    if write:
                        cursor.execute("UPDATE running_time SET seconds = ?", (self.now(),))
                    cursor.execute("COMMIT")
                except BaseException:
                    with contextlib.suppress(sqlite3.Error):
                        cursor.execute("ROLLBACK")
                    raise
            except (sqlite3.Error, UnicodeDecodeError) as error:
                # Python cannot read what SQLite says of a file that is damaged.
                raise OutboxUnavailable(f"the outbox cannot be written: {error}") from error


def _has(cursor: sqlite3.Cursor, digest: bytes) -> bool:
    return cursor.execute("SELECT 1 FROM events WHERE hash = ?", (digest,)).fetchone() is not None


def _last(cursor: sqlite3.Cursor, digest: bytes, run: PlannedRun) -> sqlite3.Row | None:
    """The newest run of an event for a rule."""
    row: sqlite3.Row | None = cursor.execute(
        "SELECT runs.* FROM runs JOIN events ON events.id = runs.event_id WHERE hash = ? AND rule = ?"
        " ORDER BY runs.id DESC LIMIT 1",
        (digest, run.rule),
    ).fetchone()
    return row


def _can_start_again(cursor: sqlite3.Cursor, last: sqlite3.Row) -> bool:
    """Whether a run failed, and all later ones of the same subject as well: an older commit must not overtake them."""
    newer = cursor.execute(
        f"SELECT count(*) AS n FROM runs WHERE id >= ? AND (id = ? OR subject = ?) AND NOT ({_FAILED_SQL})",  # noqa: S608 - a constant
        (last["id"], last["id"], last["subject"]),
    ).fetchone()
    return bool(newer["n"] == 0)


def _next_key(first: str, last: str) -> str:
    """The idempotency key of the next run of an event for a rule; a rule's name has no dot."""
    number = last.removeprefix(first).removeprefix(".") or "1"
    return f"{first}.{int(number) + 1}"


class RunningTime:
    """Seconds during which a receiver ran, those of earlier ones included; thread-safe, never goes back."""

    def __init__(self, before: float, clock: Callable[[], float]) -> None:
        self._seconds = before
        self._clock = clock
        self._last = clock()
        self._lock = threading.Lock()

    def seconds(self) -> float:
        """The running time now."""
        with self._lock:
            now = self._clock()
            self._seconds += max(0.0, now - self._last)
            self._last = now
            return self._seconds


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the file to the newest schema, all of it or nothing; raises `OutboxUnavailable` for a newer one."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        if version > len(_MIGRATIONS):
            raise OutboxUnavailable(
                f"the outbox {path} has schema {version} of a newer release; this one reads up to {len(_MIGRATIONS)}",
                advice=_NEWER,
            )
        for statements in _MIGRATIONS[version:]:
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(_MIGRATIONS)}")
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        connection.close()
        raise


def _make_private(path: Path) -> None:
    # SQLite gives the files that it puts beside this one the mode of this one, at the moment that it makes them.
    path.touch(mode=0o600)
    path.chmod(0o600)
    for end in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + end).chmod(0o600)


FINAL_OUTCOMES = FINAL_STATES | {"NOT_STARTED", "UNKNOWN"}
_FAILED_SQL = "coalesce(state = 'failed' OR outcome IN ('FAILED', 'CRASHED', 'NOT_STARTED'), 0)"
_ENDED_SQL = ", ".join(f"'{each}'" for each in sorted(FINAL_STATES))
_FINAL_SQL = ", ".join(f"'{each}'" for each in sorted(FINAL_OUTCOMES))


def _readable(row: sqlite3.Row) -> OutboxRun | None:
    """A row as a run; None for one that is damaged, which is logged."""
    try:
        return _run(row)
    except (ValueError, TypeError, KeyError) as error:
        log(f"a run in the outbox cannot be read: {type(error).__name__}", level=logging.ERROR, run=row["id"])
        return None


def _parameters(text: str) -> dict[str, Any]:
    """What `store` has written, which is always ASCII; raises `ValueError` for anything else."""
    found = json.loads(text)
    if not text.isascii() or not isinstance(found, dict):
        raise ValueError("the parameters are damaged")
    return found


def _run(row: sqlite3.Row) -> OutboxRun:
    target = json.loads(row["target"]) if row["target"] else None
    return OutboxRun(
        id=row["id"],
        source=row["source"],
        rule=row["rule"],
        deployment=row["deployment"],
        parameters=_parameters(row["parameters"]),
        key=row["key"],
        received=row["received"],
        stored=row["stored"],
        state=DispatchState(row["state"]),
        attempts=row["attempts"],
        flow_run_id=row["flow_run_id"],
        outcome=row["outcome"],
        error=row["error"],
        target=StatusTarget(**target) if target else None,
        reported=row["reported"],
        report_attempts=row["report_attempts"],
    )
