"""The file of the outbox: private, readable while another writes, and with a time of its own."""

import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from soci_pipeline.webhook.errors import OutboxUnavailable
from soci_pipeline.webhook.outbox import Outbox
from tests.support.outboxes import Clock, digest, planned


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
        assert not outbox.starts(digest(1), [planned()])
        assert outbox.counts()["pending"] == 1
        assert outbox.oldest_pending_s() < 60
        assert outbox.run(key) is not None
        assert outbox.unfinished() == []
        other.close()


def test_a_place_that_is_no_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutboxUnavailable, match="cannot be opened"):
        Outbox(tmp_path / "file" / "events.sqlite3")


def test_a_file_that_is_damaged_is_an_error_whatever_sqlite_says_of_it(tmp_path: Path) -> None:
    path = tmp_path / "events.sqlite3"
    with Outbox(path) as outbox:
        outbox.store(digest(1), "s", "x", [planned()])
    # The name of a table, which SQLite quotes where it finds the schema damaged.
    damaged = path.read_bytes().replace(b"CREATE TABLE runs", b"CREATE \x9aABLE runs")
    path.write_bytes(damaged)
    with pytest.raises(OutboxUnavailable):
        Outbox(path)


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


def test_the_folders_above_the_file_are_made_where_they_are_missing(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "events.sqlite3"
    with Outbox(path) as outbox:
        outbox.check_writable()
    assert path.is_file()


def test_the_running_time_does_not_go_back_with_a_clock_that_does(outbox: Outbox, clock: Clock) -> None:
    clock.now += 10
    assert outbox.now() == 10
    clock.now -= 0.5
    assert outbox.now() == 10
    clock.now += 0.5
    assert outbox.now() == 10.5
