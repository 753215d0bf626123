"""The schema of the outbox, and its migrations from older releases."""

import contextlib
import sqlite3
from pathlib import Path

from soci_pipeline.webhook.errors import OutboxUnavailable

# One tuple of statements per version; `PRAGMA user_version` is the number applied. Never edit one, only append.
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
        # From this version on `next_attempt`, `next_report`, `stored` and `finished` are running time.
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
_NEWER = "Start the release that wrote it, or use another outbox in the configuration."


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Migrate the file to the newest schema in one transaction; raise `OutboxUnavailable` if its schema is newer."""
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
