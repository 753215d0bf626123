"""The SQLite file of the outbox: opening it, transactions, and the running time stored in it."""

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

from soci_pipeline.webhook.errors import OutboxUnavailable
from soci_pipeline.webhook.outbox.rows import OutboxRun, readable
from soci_pipeline.webhook.outbox.schema import migrate


class RunningTime:
    """Total seconds for which receivers have been running on this file; thread-safe, never decreases."""

    def __init__(self, before: float, clock: Callable[[], float]) -> None:
        self._seconds = before
        self._clock = clock
        self._last = clock()
        self._lock = threading.Lock()

    def seconds(self) -> float:
        """Return the running time now."""
        with self._lock:
            now = self._clock()
            self._seconds += max(0.0, now - self._last)
            self._last = now
            return self._seconds


class OutboxFile:
    """The SQLite file; created with its folder if missing, and migrated from the schema of an older release.

    ``clock`` is in monotonic seconds.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic, busy_timeout_s: float = 5.0) -> None:
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            _make_private(path)
            self._connection = sqlite3.connect(
                path, timeout=busy_timeout_s, isolation_level=None, check_same_thread=False
            )
            self._connection.row_factory = sqlite3.Row
            # A damaged string must not make the other columns unreadable.
            self._connection.text_factory = lambda text: text.decode(errors="replace")
            self._connection.execute("PRAGMA journal_mode = WAL")
            # A 202 promises durability: the row must survive a power failure.
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute("PRAGMA foreign_keys = ON")
            # Temporary files would have the mode of the umask.
            self._connection.execute("PRAGMA temp_store = MEMORY")
            migrate(self._connection, path)
            before = self._connection.execute("SELECT seconds FROM running_time").fetchone()
        except (sqlite3.Error, OSError, UnicodeDecodeError) as error:
            raise OutboxUnavailable(f"the outbox {path} cannot be opened: {error}") from error
        self._running = RunningTime(before["seconds"], clock)

    def now(self) -> float:
        """Return the running time in seconds."""
        return self._running.seconds()

    def age_s(self, run: OutboxRun) -> float:
        """Return for how many seconds of running time the run has been stored."""
        return self.now() - run.stored

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, key: str) -> OutboxRun | None:
        """Return the run with this idempotency key, or None."""
        found = self._select("key = ?", 1, key)
        return found[0] if found else None

    def _select(self, condition: str, limit: int, *values: object) -> list[OutboxRun]:
        with self._transaction(write=False) as cursor:
            rows = cursor.execute(f"SELECT * FROM runs WHERE {condition} ORDER BY id LIMIT ?", (*values, limit))  # noqa: S608 - callers pass constant conditions
            return [run for row in rows.fetchall() if (run := readable(row)) is not None]

    def _update(self, run: OutboxRun, **columns: object) -> None:
        assignments = ", ".join(f"{name} = ?" for name in columns)
        with self._transaction() as cursor:
            cursor.execute(f"UPDATE runs SET {assignments} WHERE id = ?", (*columns.values(), run.id))  # noqa: S608 - callers pass constant column names

    @contextlib.contextmanager
    def _transaction(self, *, write: bool = True) -> Iterator[sqlite3.Cursor]:
        with self._lock:
            try:
                cursor = self._connection.cursor()
                # In WAL mode readers do not wait. Writers take the lock at the start, since a later upgrade may fail.
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
                # For a damaged file, SQLite's message may not be decodable.
                raise OutboxUnavailable(f"the outbox cannot be written: {error}") from error


def _make_private(path: Path) -> None:
    # SQLite creates its -wal and -shm files with the current mode of this file.
    path.touch(mode=0o600)
    path.chmod(0o600)
    for end in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + end).chmod(0o600)
