"""Runs on their way to Prefect: taken in turn, given back, and not lost by a crash."""

import contextlib
import sqlite3
from pathlib import Path

import pytest

from soci_pipeline.webhook.outbox import Outbox, StatusTarget
from tests.support.outboxes import Clock, digest, planned


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


@pytest.mark.parametrize("taken", [True, False], ids=["taken at last", "cancelled, because"])
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


def test_the_age_of_the_oldest_pending_run_is_known(outbox: Outbox, clock: Clock) -> None:
    assert outbox.oldest_pending_s() == 0
    clock.now += 5
    outbox.store(digest(1), "s", "x", [planned()])
    assert outbox.oldest_pending_s() == 0
    clock.now += 7
    assert outbox.oldest_pending_s() == 7


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


def test_a_wait_of_two_hours_is_the_longest_that_outlasts_a_new_start(outbox: Outbox, clock: Clock) -> None:
    for number, wait in ((1, 7200), (2, 7201)):
        outbox.store(digest(number), "s", "x", [planned(subject=None)])
        run = outbox.claim()
        assert run is not None
        outbox.postpone(run, wait, "down")
    assert outbox.reclaim() == 0
    ended = outbox.claim()
    assert ended is not None
    assert ended.key.startswith(digest(2).hex())
    assert outbox.claim() is None
    clock.now += 7200
    assert outbox.claim() is not None


def test_a_look_for_a_run_waits_for_no_writer_while_none_is_due(tmp_path: Path) -> None:
    path = tmp_path / "events.sqlite3"
    with Outbox(path, busy_timeout_s=0) as outbox, contextlib.closing(sqlite3.connect(path)) as other:
        other.isolation_level = None
        other.execute("BEGIN IMMEDIATE")
        assert outbox.claim() is None
        other.execute("ROLLBACK")
