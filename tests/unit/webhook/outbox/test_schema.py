"""The file of an older release: migrated as a whole, or left as it is."""

import sqlite3
from pathlib import Path

import pytest

from soci_pipeline.webhook.errors import OutboxUnavailable
from soci_pipeline.webhook.outbox import Outbox
from tests.support.outboxes import digest, planned

SCHEMA_WITHOUT_A_VERSION = """
CREATE TABLE events (id INTEGER PRIMARY KEY, hash BLOB NOT NULL UNIQUE, source TEXT NOT NULL, subject TEXT NOT NULL,
    received REAL NOT NULL);
CREATE TABLE runs (id INTEGER PRIMARY KEY, event_id INTEGER NOT NULL REFERENCES events (id), source TEXT NOT NULL,
    rule TEXT NOT NULL, deployment TEXT NOT NULL, parameters TEXT NOT NULL, key TEXT NOT NULL UNIQUE, subject TEXT,
    received REAL NOT NULL, state TEXT NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, next_attempt REAL NOT NULL,
    flow_run_id TEXT, outcome TEXT, error TEXT, target TEXT, reported TEXT,
    report_attempts INTEGER NOT NULL DEFAULT 0, next_report REAL NOT NULL DEFAULT 0);
CREATE TABLE looks (id INTEGER PRIMARY KEY CHECK (id = 1), at REAL NOT NULL);
CREATE INDEX runs_by_state ON runs (state, next_attempt);
CREATE INDEX runs_by_subject ON runs (subject);
"""


def old_outbox(path: Path) -> None:
    """A file as the first release made it: one run that is due in 2100, and one that has ended."""
    connection = sqlite3.connect(path)
    connection.executescript(SCHEMA_WITHOUT_A_VERSION)
    for number, state, outcome in ((1, "pending", None), (2, "dispatched", "COMPLETED")):
        connection.execute("INSERT INTO events VALUES (?, ?, 's', 'x', 4102444800.0)", (number, digest(number)))
        connection.execute(
            "INSERT INTO runs (event_id, source, rule, deployment, parameters, key, received, state, next_attempt,"
            " outcome) VALUES (?, 's', 'shop', 'publish-image/publish', '{}', ?, 4102444800.0, ?, 4102444800.0, ?)",
            (number, f"key{number}", state, outcome),
        )
    connection.commit()
    connection.close()


def test_a_file_of_the_first_release_is_migrated_and_what_it_holds_stays(tmp_path: Path) -> None:
    path = tmp_path / "events.sqlite3"
    old_outbox(path)
    for _ in range(2):
        with Outbox(path) as outbox:
            assert outbox.counts() | {"pending": 1, "dispatched": 1} == outbox.counts()
            assert not outbox.store(digest(1), "s", "x", [planned()]).new
    with Outbox(path) as outbox:
        run = outbox.claim()
        assert run is not None
        assert run.key == "key1"
        assert outbox.age_s(run) < 60
        assert outbox._connection.execute("PRAGMA user_version").fetchone()[0] == 2


def test_an_old_file_and_a_new_one_have_the_same_columns(tmp_path: Path) -> None:
    old_outbox(tmp_path / "old.sqlite3")

    def columns(path: Path) -> set[tuple[str, str]]:
        with Outbox(path) as outbox:
            query = "SELECT m.name, c.name FROM sqlite_master m, pragma_table_info(m.name) c WHERE m.name != 'looks'"
            return {(row[0], row[1]) for row in outbox._connection.execute(query)}

    assert columns(tmp_path / "old.sqlite3") == columns(tmp_path / "new.sqlite3")


def test_a_migration_that_is_interrupted_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "events.sqlite3"
    old_outbox(path)
    connection = sqlite3.connect(path)
    # The last statement of the migration fails.
    connection.execute("CREATE TABLE runs_by_finish (x)")
    connection.commit()
    with pytest.raises(OutboxUnavailable, match="runs_by_finish"):
        Outbox(path)
    assert connection.execute("PRAGMA user_version").fetchone()[0] == 0
    connection.execute("DROP TABLE runs_by_finish")
    connection.commit()
    connection.close()
    with Outbox(path) as outbox:
        assert outbox.claim() is not None


def test_a_file_of_a_newer_release_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "events.sqlite3"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(OutboxUnavailable, match="schema 99 of a newer release") as caught:
        Outbox(path)
    assert "newer" not in str(caught.value.advice)
