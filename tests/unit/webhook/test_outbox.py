"""The outbox: once for good, newest first where asked, and nothing lost by a crash."""

import contextlib
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from soci_pipeline.webhook.configuration import Configuration
from soci_pipeline.webhook.errors import OutboxUnavailable
from soci_pipeline.webhook.outbox import DispatchState, Outbox, StatusTarget
from soci_pipeline.webhook.retention import Cleaner
from soci_pipeline.webhook.rules import PlannedRun
from tests.support import webhook as support


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def outbox(tmp_path: Path, clock: Clock) -> Iterator[Outbox]:
    with Outbox(tmp_path / "box" / "events.sqlite3", clock=clock) as opened:
        yield opened


def planned(rule: str = "shop", subject: str | None = "shop team/shop refs/heads/main") -> PlannedRun:
    return PlannedRun(rule, "publish-image/default", {"image": "r.example/a", "tags": ["é"]}, subject)


def digest(number: int) -> bytes:
    return number.to_bytes(32, "big")


def test_the_file_and_its_folder_are_private(outbox: Outbox, tmp_path: Path) -> None:
    path = tmp_path / "box" / "events.sqlite3"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.fixture
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def modes(path: Path) -> set[int]:
    """The modes of the three files of which an open outbox consists."""
    return {stat.S_IMODE(path.with_name(path.name + end).stat().st_mode) for end in ("", "-wal", "-shm")}


@pytest.mark.usefixtures("usual_umask")
def test_what_sqlite_puts_beside_the_file_is_private_as_well(tmp_path: Path) -> None:
    path = tmp_path / "events.sqlite3"
    with Outbox(path) as outbox:
        outbox.store(digest(1), "s", "x", [planned()])
        assert modes(path) == {0o600}


@pytest.mark.usefixtures("usual_umask")
def test_an_outbox_that_others_could_read_becomes_private(tmp_path: Path) -> None:
    path = tmp_path / "events.sqlite3"
    # No close: the process is gone, and has left all three files.
    first = Outbox(path)
    for end in ("", "-wal", "-shm"):
        path.with_name(path.name + end).chmod(0o644)
    with Outbox(path):
        assert modes(path) == {0o600}
    first.close()


def test_an_event_is_stored_once_whoever_sends_it(outbox: Outbox) -> None:
    results: list[bool] = []
    threads = [
        threading.Thread(target=lambda: results.append(outbox.store(digest(1), "s", "x", [planned()]).new))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [False] * 7 + [True]
    assert outbox.counts()["pending"] == 1


def test_what_was_stored_comes_back_after_a_crash(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "events.sqlite3"
    first = Outbox(path, clock=clock)
    target = StatusTarget("team/shop", "c" * 40)
    first.store(digest(1), "s", "x", [planned()], target=target)
    assert first.claim() is not None
    # No close: the process is gone. Another one opens the file.
    with Outbox(path, clock=clock) as second:
        assert second.claim() is None
        assert second.reclaim() == 1
        run = second.claim()
        assert run is not None
        assert (run.parameters["tags"], run.target) == (["é"], target)
        assert second.store(digest(1), "s", "x", [planned()]).new is False
    first.close()


def test_a_newer_event_supersedes_an_older_one_that_was_not_dispatched(outbox: Outbox) -> None:
    outbox.store(digest(1), "s", "x", [planned()])
    outbox.store(digest(2), "s", "x", [planned(subject="another ref")])
    outbox.store(digest(3), "s", "x", [planned()])
    assert outbox.counts() | {"superseded": 1, "pending": 2} == outbox.counts()


def test_nothing_is_superseded_without_a_subject_or_once_dispatched(outbox: Outbox) -> None:
    outbox.store(digest(1), "s", "x", [planned(subject=None)])
    outbox.store(digest(2), "s", "x", [planned(subject=None)])
    outbox.store(digest(3), "s", "x", [planned(rule="other")])
    for _ in range(3):
        run = outbox.claim()
        assert run is not None
        outbox.dispatched(run, "id")
    outbox.store(digest(4), "s", "x", [planned(rule="other")])
    assert outbox.counts()["superseded"] == 0


def test_a_run_on_its_way_that_fails_after_a_newer_one_came_is_superseded(outbox: Outbox) -> None:
    outbox.store(digest(1), "s", "x", [planned()])
    older = outbox.claim()
    assert older is not None
    outbox.store(digest(2), "s", "x", [planned()])
    outbox.postpone(older, 0, "down")
    assert outbox.counts() | {"superseded": 1, "pending": 1} == outbox.counts()


def test_a_postponed_run_is_due_later_and_the_oldest_comes_first(outbox: Outbox, clock: Clock) -> None:
    outbox.store(digest(1), "s", "x", [planned(subject=None)])
    outbox.store(digest(2), "s", "x", [planned(subject=None)])
    first = outbox.claim()
    assert first is not None
    outbox.postpone(first, 10, "down")
    second = outbox.claim()
    assert second is not None
    assert second.id > first.id
    assert outbox.claim() is None
    clock.now += 10
    again = outbox.claim()
    assert again is not None
    assert (again.id, again.attempts, again.error) == (first.id, 1, "down")


@pytest.mark.parametrize("taken", [True, False], ids=["taken at last", "given up"])
def test_every_attempt_counts(outbox: Outbox, taken: bool) -> None:
    (key,) = outbox.store(digest(1), "s", "x", [planned()]).keys
    for number in range(4):
        run = outbox.claim()
        assert run is not None
        assert run.attempts == number
        if number < 3:
            outbox.postpone(run, 0, "down")
        elif taken:
            outbox.dispatched(run, "id")
        else:
            outbox.fail(run, "no")
    last = outbox.run(key)
    assert last is not None
    assert (last.attempts, last.error) == ((4, None) if taken else (4, "no"))


def test_a_report_that_is_postponed_is_due_later_and_every_try_counts(outbox: Outbox, clock: Clock) -> None:
    finished(outbox, 1, target=StatusTarget("a", "c"))
    for number in range(3):
        (run,) = outbox.to_report()
        assert run.report_attempts == number
        outbox.postpone_report(run, 10)
        assert outbox.to_report() == []
        clock.now += 9
        assert outbox.to_report() == []
        clock.now += 1


def test_runs_that_ended_are_found_for_a_while_and_by_their_id(outbox: Outbox, clock: Clock) -> None:
    for number in range(1, 4):
        finished(outbox, number)
    finished(outbox, 4, "RUNNING")

    def ids(**options: float) -> list[str | None]:
        return [run.flow_run_id for run in outbox.ended(10, **{"within_s": 60, **options})]  # type: ignore[arg-type]

    (first, *_) = outbox.ended(1, within_s=60)
    assert ids() == ["id1", "id2", "id3"]
    assert ids(after=first.id) == ["id2", "id3"]
    clock.now += 60
    assert ids() == ["id1", "id2", "id3"]
    assert ids(within_s=59) == []
    assert [run.flow_run_id for run in outbox.unfinished()] == ["id4"]


def test_the_first_run_of_all_is_unfinished_until_it_ends(outbox: Outbox) -> None:
    finished(outbox, 1, "RUNNING")
    (run,) = outbox.unfinished()
    assert outbox.unfinished(after=run.id) == []
    outbox.set_outcome(run, "COMPLETED")
    assert outbox.unfinished() == []


def test_an_outbox_without_room_for_a_usual_event_is_not_writable(outbox: Outbox) -> None:
    pages, size = (outbox._connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
    outbox._connection.execute(f"PRAGMA max_page_count = {pages + (32 << 10) // size}")
    with pytest.raises(OutboxUnavailable, match="full"):
        outbox.check_writable()
    outbox._connection.execute(f"PRAGMA max_page_count = {pages + (128 << 10) // size}")
    outbox.check_writable()


def test_the_age_of_the_oldest_pending_run_is_known(outbox: Outbox, clock: Clock) -> None:
    assert outbox.oldest_pending_s() == 0
    outbox.store(digest(1), "s", "x", [planned()])
    clock.now += 7
    assert outbox.oldest_pending_s() == 7


def test_a_failed_run_is_final_and_reported(outbox: Outbox) -> None:
    outbox.store(digest(1), "s", "x", [planned()], target=StatusTarget("a", "c"))
    run = outbox.claim()
    assert run is not None
    outbox.fail(run, "no")
    assert outbox.unfinished() == []
    (to_report,) = outbox.to_report()
    assert (to_report.state, to_report.outcome) == (DispatchState.FAILED, "NOT_STARTED")
    outbox.reported(to_report, "NOT_STARTED")
    assert outbox.to_report() == []


def test_a_lock_held_elsewhere_is_an_error_that_says_so_and_passes(tmp_path: Path) -> None:
    path = tmp_path / "events.sqlite3"
    with Outbox(path, busy_timeout_s=0.05) as outbox:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(OutboxUnavailable, match="locked") as caught:
            outbox.store(digest(1), "s", "x", [planned()])
        assert caught.value.temporary
        other.execute("ROLLBACK")
        other.close()
        assert outbox.store(digest(1), "s", "x", [planned()]).new


def test_what_only_reads_waits_for_no_writer(tmp_path: Path) -> None:
    path = tmp_path / "events.sqlite3"
    with Outbox(path, busy_timeout_s=0) as outbox:
        (key,) = outbox.store(digest(1), "s", "x", [planned()]).keys
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(OutboxUnavailable, match="locked"):
            outbox.check_writable()
        assert outbox.has(digest(1))
        assert outbox.counts()["pending"] == 1
        assert outbox.oldest_pending_s() < 60
        assert outbox.run(key) is not None
        assert outbox.unfinished() == []
        other.close()


def test_a_full_disk_stores_neither_the_event_nor_a_part_of_it(tmp_path: Path) -> None:
    path = tmp_path / "events.sqlite3"
    with Outbox(path) as outbox:
        pages = outbox._connection.execute("PRAGMA page_count").fetchone()[0]
        outbox._connection.execute(f"PRAGMA max_page_count = {pages}")
        big = PlannedRun("big", "publish-image/default", {"x": "y" * 100_000}, None)
        with pytest.raises(OutboxUnavailable, match="full"):
            outbox.store(digest(1), "s", "x", [planned(), big])
        assert sum(outbox.counts().values()) == 0
        assert outbox.store(digest(1), "s", "x", [planned()]).new


def test_a_place_that_is_no_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutboxUnavailable, match="cannot be opened"):
        Outbox(tmp_path / "file" / "events.sqlite3")


@pytest.mark.parametrize("jump", [-365 * 86400.0, 365 * 86400.0])
def test_a_clock_of_the_machine_that_jumps_changes_neither_what_is_due_nor_an_age(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    path = tmp_path / "events.sqlite3"
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + jump)
    with Outbox(path) as outbox:
        outbox.store(digest(1), "s", "x", [planned()])
    monkeypatch.setattr(time, "time", real)
    with Outbox(path) as outbox:
        run = outbox.claim()
        assert run is not None
        assert 0 <= outbox.age_s(run) < 60
        outbox.postpone(run, 0, "down")
        monkeypatch.setattr(time, "time", lambda: real() + jump)
        again = outbox.claim()
        assert again is not None
        assert 0 <= outbox.oldest_pending_s() < 60


def test_time_during_which_no_receiver_runs_does_not_count(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "events.sqlite3"
    with Outbox(path, clock=clock) as outbox:
        outbox.store(digest(1), "s", "x", [planned()])
        clock.now += 100
        run = outbox.claim()
        assert run is not None
        outbox.postpone(run, 10, "down")
    clock.now = 5  # the machine was restarted
    with Outbox(path, clock=clock) as outbox:
        assert outbox.claim() is None
        clock.now += 10
        run = outbox.claim()
        assert run is not None
        assert outbox.age_s(run) == 110


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
            " outcome) VALUES (?, 's', 'shop', 'publish-image/default', '{}', ?, 4102444800.0, ?, 4102444800.0, ?)",
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


def finished(outbox: Outbox, number: int, outcome: str = "COMPLETED", *, target: StatusTarget | None = None) -> None:
    outbox.store(digest(number), "s", "x", [planned(subject=None)], target=target)
    run = outbox.claim()
    assert run is not None
    outbox.dispatched(run, f"id{number}")
    outbox.set_outcome(run, outcome)


def test_what_ended_long_ago_is_deleted_and_a_replay_is_still_recognised(outbox: Outbox, clock: Clock) -> None:
    finished(outbox, 1)
    finished(outbox, 2, "RUNNING")
    finished(outbox, 3, target=StatusTarget("a", "c"))
    outbox.store(digest(4), "s", "x", [planned(subject=None)])
    clock.now += 100
    finished(outbox, 5)
    assert outbox.delete_finished(50) == 1
    kept = [outbox.run(f"{digest(number).hex()}-shop") is not None for number in range(1, 6)]
    assert kept == [False, True, True, True, True]
    assert not outbox.store(digest(1), "s", "x", [planned()]).new
    names = outbox._connection.execute("SELECT source, subject FROM events ORDER BY id").fetchall()
    assert [tuple(each) for each in names[:2]] == [("", ""), ("s", "x")]


def test_hashes_go_where_that_was_asked_for_and_never_before_their_runs(outbox: Outbox, clock: Clock) -> None:
    finished(outbox, 1)
    finished(outbox, 2)
    clock.now += 100
    assert outbox.delete_hashes(50) == 0
    assert outbox.delete_finished(50) == 2
    assert outbox.delete_hashes(50) == 2
    assert outbox.store(digest(1), "s", "x", [planned()]).new


def test_a_hash_stays_for_as_long_as_was_asked_for(outbox: Outbox, clock: Clock) -> None:
    finished(outbox, 1)
    assert outbox.delete_finished(0) == 1
    clock.now += 49
    assert outbox.delete_hashes(50) == 0
    clock.now += 1
    assert outbox.delete_hashes(50) == 1


def test_the_configuration_says_how_long_what_ended_is_kept(outbox: Outbox, clock: Clock, tmp_path: Path) -> None:
    def configured(**retention: float) -> Configuration:
        return support.configuration(tmp_path, retention=retention)

    for number in range(3):
        finished(outbox, number)
    cleaner = Cleaner(outbox, configured(runs_days=8, hashes_days=8))
    clock.now += 7.5 * 86400
    cleaner.step()
    assert outbox.counts()["dispatched"] == 3
    clock.now += 86400
    cleaner.step()
    assert outbox.counts()["dispatched"] == 0
    assert not outbox.has(digest(1))
    Cleaner(outbox, configured(runs_days=1)).step()


def test_what_may_still_change_is_not_deleted(outbox: Outbox, clock: Clock, tmp_path: Path) -> None:
    finished(outbox, 1, "CRASHED")
    clock.now += 2 * 86400
    Cleaner(outbox, support.configuration(tmp_path, retention={"runs_days": 1})).step()
    assert outbox.counts()["dispatched"] == 1


def test_an_outbox_is_not_writable_where_the_event_that_failed_would_fail_again(tmp_path: Path) -> None:
    with Outbox(tmp_path / "events.sqlite3") as outbox:
        outbox.check_writable()
        pages = outbox._connection.execute("PRAGMA page_count").fetchone()[0]
        outbox._connection.execute(f"PRAGMA max_page_count = {pages + 40}")
        outbox.check_writable()
        big = PlannedRun("big", "publish-image/default", {"x": "y" * 400_000}, None)
        for _ in range(2):
            with pytest.raises(OutboxUnavailable, match="full"):
                outbox.store(digest(1), "s", "x", [big])
            with pytest.raises(OutboxUnavailable, match="full"):
                outbox.check_writable()
        outbox._connection.execute("PRAGMA max_page_count = 1000000")
        outbox.check_writable()
        assert outbox.store(digest(1), "s", "x", [big]).new


@pytest.mark.parametrize("text", [b"{", b"3", b'{"image": "r.example/\xff"}', b"\xff\xfe"])
def test_a_row_that_is_damaged_is_given_up_and_holds_up_no_other(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "events.sqlite3"
    with Outbox(path) as outbox:
        for number in (1, 2):
            outbox.store(digest(number), "s", "x", [planned(subject=None)], target=StatusTarget("team/shop", "c"))
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("UPDATE runs SET parameters = CAST(? AS TEXT) WHERE id = 1", (text,))
        other.commit()
    with Outbox(path) as outbox:
        run = outbox.claim()
        assert run is not None
        assert run.id == 2
        assert (outbox.counts()["failed"], outbox.counts()["dispatching"]) == (1, 1)
        assert outbox.to_report() == []
        assert outbox.delete_finished(0) == 1


def test_a_file_that_is_damaged_is_an_error_whatever_sqlite_says_of_it(tmp_path: Path) -> None:
    path = tmp_path / "events.sqlite3"
    with Outbox(path) as outbox:
        outbox.store(digest(1), "s", "x", [planned()])
    # The name of a table, which SQLite quotes where it finds the schema damaged.
    damaged = path.read_bytes().replace(b"CREATE TABLE runs", b"CREATE \x9aABLE runs")
    path.write_bytes(damaged)
    with pytest.raises(OutboxUnavailable):
        Outbox(path)


def test_a_wait_that_an_older_release_wrote_after_the_file_was_migrated_ends_at_the_next_start(tmp_path: Path) -> None:
    path = tmp_path / "events.sqlite3"
    with Outbox(path) as outbox:
        outbox.store(digest(1), "s", "x", [planned()])
    with contextlib.closing(sqlite3.connect(path)) as older:
        # It waits by the machine's clock.
        older.execute("UPDATE runs SET next_attempt = 1790000000.0, next_report = 1790000000.0")
        older.commit()
    with Outbox(path) as outbox:
        assert outbox.claim() is None
        assert outbox.reclaim() == 0
        assert outbox.claim() is not None
