"""The outbox: once for good, newest first where asked, and nothing lost by a crash."""

import os
import sqlite3
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from soci_pipeline.webhook.errors import OutboxUnavailable
from soci_pipeline.webhook.outbox import Outbox, RunState, StatusTarget
from soci_pipeline.webhook.rules import PlannedRun


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


def test_what_lies_beside_the_file_is_private_too_and_a_file_that_was_not_becomes_so(tmp_path: Path) -> None:
    path = tmp_path / "events.sqlite3"
    before = os.umask(0o022)
    try:
        with Outbox(path) as outbox:
            outbox.store(digest(1), "github", "x", [planned()])
            files = sorted(tmp_path.iterdir())
            assert [each.name for each in files] == ["events.sqlite3", "events.sqlite3-shm", "events.sqlite3-wal"]
            assert {stat.S_IMODE(each.stat().st_mode) for each in files} == {0o600}
            for each in files:
                each.chmod(0o644)
            with Outbox(path):
                assert {stat.S_IMODE(each.stat().st_mode) for each in files} == {0o600}
    finally:
        os.umask(before)


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
    assert (to_report.state, to_report.outcome) == (RunState.FAILED, "NOT_STARTED")
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
