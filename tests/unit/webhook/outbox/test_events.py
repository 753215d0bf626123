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
        big = PlannedRun("big", "publish-image/default", {"x": "y" * 100_000}, None)
        with pytest.raises(OutboxUnavailable, match="full"):
            outbox.store(digest(1), "s", "x", [planned(), big])
        assert sum(outbox.counts().values()) == 0
        assert outbox.store(digest(1), "s", "x", [planned()]).new


def test_an_outbox_without_room_for_a_usual_event_is_not_writable(outbox: Outbox) -> None:
    pages, size = (outbox._connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
    outbox._connection.execute(f"PRAGMA max_page_count = {pages + (32 << 10) // size}")
    with pytest.raises(OutboxUnavailable, match="full"):
        outbox.check_writable()
    outbox._connection.execute(f"PRAGMA max_page_count = {pages + (128 << 10) // size}")
    outbox.check_writable()


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
