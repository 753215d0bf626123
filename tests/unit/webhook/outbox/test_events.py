"""Storing events: each once, the newest of a subject, and all of it or nothing."""

import threading
from pathlib import Path

import pytest

from soci_pipeline.webhook.errors import OutboxUnavailable
from soci_pipeline.webhook.outbox import Outbox
from soci_pipeline.webhook.rules import PlannedRun
from tests.support.outboxes import digest, planned


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


def test_a_full_disk_stores_neither_the_event_nor_a_part_of_it(tmp_path: Path) -> None:
    path = tmp_path / "events.sqlite3"
    with Outbox(path) as outbox:
        pages = outbox._connection.execute("PRAGMA page_count").fetchone()[0]
        outbox._connection.execute(f"PRAGMA max_page_count = {pages}")
        big = PlannedRun("big", "publish-image/publish", {"x": "y" * 100_000}, None)
        with pytest.raises(OutboxUnavailable, match="full"):
            outbox.store(digest(1), "s", "x", [planned(), big])
        assert sum(outbox.counts().values()) == 0
        assert outbox.store(digest(1), "s", "x", [planned()]).new


def test_an_outbox_without_room_for_a_usual_event_is_not_writable(outbox: Outbox) -> None:
    pages, size = (outbox._connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
    outbox._connection.execute(f"PRAGMA max_page_count = {pages + (32 << 10) // size}")
    with pytest.raises(OutboxUnavailable, match="full"):
        outbox.check_writable()
    outbox._connection.execute(f"PRAGMA max_page_count = {pages + (80 << 10) // size}")
    outbox.check_writable()


def test_an_outbox_is_not_writable_where_the_event_that_failed_would_fail_again(tmp_path: Path) -> None:
    with Outbox(tmp_path / "events.sqlite3") as outbox:
        outbox.check_writable()
        pages = outbox._connection.execute("PRAGMA page_count").fetchone()[0]
        outbox._connection.execute(f"PRAGMA max_page_count = {pages + 40}")
        outbox.check_writable()
        big = PlannedRun("big", "publish-image/publish", {"x": "y" * 400_000}, None)
        for _ in range(2):
            with pytest.raises(OutboxUnavailable, match="full"):
                outbox.store(digest(1), "s", "x", [big])
            with pytest.raises(OutboxUnavailable, match="full"):
                outbox.check_writable()
        outbox._connection.execute("PRAGMA max_page_count = 1000000")
        outbox.check_writable()
        assert outbox.store(digest(1), "s", "x", [big]).new


def take(outbox: Outbox, outcome: str) -> str:
    """Take the run that is due, and have Prefect say this of it; returns its key."""
    run = outbox.claim()
    assert run is not None
    outbox.dispatched(run, f"id of {run.key}")
    outbox.set_outcome(run, outcome)
    return run.key


def test_each_new_run_of_an_event_that_failed_has_the_next_key(outbox: Outbox) -> None:
    first = outbox.store(digest(1), "s", "x", [planned()]).keys[0]
    for key in (first, f"{first}.2", f"{first}.3", f"{first}.4"):
        assert take(outbox, "FAILED") == key
        assert outbox.starts(digest(1), [planned()])
        assert not outbox.store(digest(1), "s", "x", [planned()]).new
        assert outbox.store(digest(1), "s", "x", [planned()], again=True).new
        assert not outbox.starts(digest(1), [planned()])


def test_only_an_event_that_is_new_or_failed_starts_something(outbox: Outbox) -> None:
    assert outbox.starts(digest(1), [planned()])
    outbox.store(digest(1), "s", "x", [planned()])
    assert not outbox.starts(digest(1), [planned()])
    take(outbox, "COMPLETED")
    assert not outbox.starts(digest(1), [planned()])


def test_of_several_runs_those_that_failed_start_again(outbox: Outbox) -> None:
    runs = [planned(rule, None) for rule in ("a", "b", "c")]
    a, b, c = outbox.store(digest(1), "s", "x", runs).keys
    for outcome in ("COMPLETED", "FAILED", "CRASHED"):
        take(outbox, outcome)
    assert outbox.starts(digest(1), runs)
    again = outbox.store(digest(1), "s", "x", runs, again=True)
    assert (again.new, again.keys) == (True, (a, f"{b}.2", f"{c}.2"))


def test_a_rule_that_is_newer_than_an_event_starts_nothing_for_it(outbox: Outbox) -> None:
    outbox.store(digest(1), "s", "x", [planned()])
    take(outbox, "FAILED")
    later = [planned("later", None)]
    assert not outbox.starts(digest(1), later)
    assert not outbox.store(digest(1), "s", "x", later, again=True).new
    assert outbox.claim() is None


def test_a_run_that_failed_starts_again_only_while_none_after_it_of_its_subject_did_not(outbox: Outbox) -> None:
    for number, outcome in ((1, "FAILED"), (2, "FAILED"), (3, "COMPLETED")):
        outbox.store(digest(number), "s", "x", [planned(subject=None if number == 3 else "main")])
        take(outbox, outcome)
    assert outbox.starts(digest(1), [planned()])
    outbox.store(digest(4), "s", "x", [planned(subject="main")])
    assert not outbox.starts(digest(1), [planned()])
